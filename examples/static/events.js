// Shows the feed named by the list's data-feed, one item an event, until its event "end".
"use strict";

const list = document.getElementById("events");
const state = document.getElementById("state");
const source = new EventSource(list.dataset.feed);

source.addEventListener("message", (event) => {
  const { number, of, time } = JSON.parse(event.data);
  const item = document.createElement("li");
  item.textContent = time;
  list.append(item);
  state.textContent = `Event ${number} of ${of}.`;
});

source.addEventListener("end", () => {
  source.close(); // else the browser would connect again
  state.textContent = "The feed has ended.";
});

source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) {
    state.textContent = "The feed was closed.";
  } else {
    state.textContent = "The connection broke; trying again.";
  }
});
