-- The load that `load.py` has wrk make. Knows no server. Arguments after `--`, each key=value:
--   host     value of the Host field         path    request path
--   fields   "browser" adds twelve fields    unique  1 adds a cookie and an id of the request's own
--   query    1 gives each request a new one  body    size of the content of a POST
--   close    1 asks for one connection per request
--   field    one more field line         files   so many paths in turn, /many/NUMBER.html
--   seed     makes the queries, cookies and ids of one run unlike those of the next
-- Requests are built before the run; while it runs each costs wrk one table lookup.

-- More than any server may sensibly remember: what is "new" here has left every cache before it comes again.
local VARIANTS = 8192

local BROWSER = {
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Accept-Language: en-US,en;q=0.7,de;q=0.3",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "DNT: 1",
  "Connection: keep-alive",
  "Upgrade-Insecure-Requests: 1",
  "Sec-Fetch-Dest: document",
  "Sec-Fetch-Mode: navigate",
  "Sec-Fetch-Site: none",
  "Sec-Fetch-User: ?1",
  "Priority: u=0, i",
}

local requests = {}
local count = 0
local at = 0

local function build(options, number)
  local size = tonumber(options.body or "0")
  local target = options.path
  if options.files then
    target = string.format("/many/%d.html", number)
  end
  if options.query then
    target = string.format("%s?seed=%s&item=%d", target, options.seed, number)
  end
  local lines = { string.format("%s %s HTTP/1.1", size > 0 and "POST" or "GET", target), "Host: " .. options.host }
  if options.field then
    lines[#lines + 1] = options.field
  end
  if options.fields == "browser" then
    for _, line in ipairs(BROWSER) do
      lines[#lines + 1] = line
    end
  end
  if options.unique then
    lines[#lines + 1] = string.format("Cookie: session=%s.%06d; theme=dark", options.seed, number)
    lines[#lines + 1] = string.format("X-Request-Id: %s-%06d", options.seed, number)
  end
  if size > 0 then
    lines[#lines + 1] = "Content-Type: application/octet-stream"
    lines[#lines + 1] = string.format("Content-Length: %d", size)
  end
  if options.close then
    lines[#lines + 1] = "Connection: close"
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. string.rep("x", size)
end

function init(arguments)
  local options = {}
  for _, argument in ipairs(arguments) do
    local key, value = argument:match("^(%w+)=(.*)$")
    if key then
      options[key] = value
    end
  end
  count = tonumber(options.files or "0")
  if count == 0 then
    count = (options.query or options.unique) and VARIANTS or 1
  end
  for number = 1, count do
    requests[number] = build(options, number)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "RESULT requests=%d bytes=%d duration_us=%d connect=%d read=%d write=%d status=%d timeout=%d "
      .. "p50_us=%d p99_us=%d max_us=%d\n",
    summary.requests, summary.bytes, summary.duration, errors.connect, errors.read, errors.write, errors.status,
    errors.timeout, latency:percentile(50), latency:percentile(99), latency.max
  ))
end
