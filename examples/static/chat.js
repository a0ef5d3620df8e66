// The page of the chat: one WebSocket, named by the list's data-socket; opened again when it breaks, a little later each time.
"use strict";

const list = document.getElementById("messages");
const state = document.getElementById("state");
const form = document.getElementById("say");
const nameField = document.getElementById("name");
const textField = document.getElementById("text");
const SHOWN_MAX = 200;
const WAIT_MAX_MS = 30000;
let socket = null;
let waitMs = 500;

function show(message) {
  if (message.visitors !== undefined) {
    state.textContent = message.visitors === 1 ? "Nobody else is here." : `${message.visitors} are here.`;
    return;
  }
  const item = document.createElement("li");
  const who = document.createElement("strong");
  who.textContent = message.name;
  item.append(who, " ", message.text); // as text: nobody writes into another's page
  list.append(item);
  while (list.childElementCount > SHOWN_MAX) {
    list.firstElementChild.remove();
  }
}

function connect() {
  const address = new URL(list.dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(address);
  socket.addEventListener("open", () => {
    waitMs = 500;
  });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", () => {
    state.textContent = "The connection has ended; trying again.";
    setTimeout(connect, waitMs);
    waitMs = Math.min(waitMs * 2, WAIT_MAX_MS);
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ name: nameField.value, text: textField.value }));
    textField.value = "";
  }
});

connect();
