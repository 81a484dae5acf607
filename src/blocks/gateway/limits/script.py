"""The script that Redis runs for all shared limits of a request at once: it reads all, decides, and writes all or none.

Time is the server's, so that gateways with different clocks agree. It is one atomic step in Redis (EVALSHA), one round trip.
Each limit is one key and eight arguments: kind (g, w, q), cost, force (1: take without asking, and cap the debt), dry (1: decide
by itself), and four numbers: for g the interval, the span, the cap of the debt and 0; for w the amount and the period; for q the amount and
the calendar unit's begin, end and the next one's end. The answer has three whole numbers a limit: the wait in
microseconds (0: passed, -1: never), what is left, and the microseconds until all of it is back.
"""

from __future__ import annotations

from hashlib import sha1

WIDTH = 8
SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local answer, writes, passed = {}, {}, true

local function ceil(seconds)
  return math.ceil(seconds * 1000000)
end

local function decide(i, key, a)
  local kind, cost, force = ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2] == '1'
  local p1, p2, p3, p4 = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7])
  local wait, left, reset, write = 0, 0, 0, nil
  if kind == 'g' then
    local before = math.max(tonumber(redis.call('GET', key) or '0') or 0, now)
    local tat = before + cost * p1
    if force then
      tat = math.max(math.min(tat, now + p3), now)
    elseif cost * p1 > p2 * 1.000000001 + 0.000001 then
      wait, tat = -1, before
    elseif tat - now > p2 * 1.000000001 + 0.000001 then
      wait, tat = math.max(ceil(tat - now - p2), 1), before
    end
    left, reset = math.floor(math.max(p2 - (tat - now), 0) / p1 + 0.000001), ceil(tat - now)
    write = {string.format('%.6f', tat), math.max(math.ceil((tat - now) * 1000), 1)}
  elseif kind == 'w' then
    local index = math.floor(now / p2)
    local part = now / p2 - index
    local last, this = 0, 0
    local stored = redis.call('GET', key)
    if stored then
      local at, l, t = string.match(stored, '^(%d+):(%d+):(%d+)$')
      if tonumber(at) == index then last, this = tonumber(l), tonumber(t)
      elseif tonumber(at) == index - 1 then last = tonumber(t) end
    end
    local free = p1 - cost
    if force then
      this = math.max(this + cost, 0)
    elseif cost > p1 then wait = -1
    elseif last * (1 - part) + this > free + 0.000001 then
      if this <= free then wait = ceil((1 - (free - this) / last - part) * p2)
      else wait = ceil((1 - part + math.max(1 - free / this, 0)) * p2) end
      wait = math.max(wait, 1)
    else this = this + cost end
    left = math.floor(math.max(p1 - last * (1 - part) - this, 0) + 0.000001)
    if this > 0 then reset = ceil((2 - part) * p2) elseif last > 0 then reset = ceil((1 - part) * p2) end
    write = {string.format('%d:%d:%d', index, last, this), math.ceil(2 * p2 * 1000)}
  else
    local begin, finish = p2, p3
    if now >= p3 then begin, finish = p3, p4 end
    key = key .. ':' .. string.format('%d', begin)
    local used = tonumber(redis.call('GET', key) or '0')
    if force then used = math.max(used + cost, 0)
    elseif cost > p1 then wait = -1
    elseif used + cost > p1 then wait = math.max(ceil(finish - now), 1)
    else used = used + cost end
    left, reset = math.floor(math.max(p1 - used, 0)), math.max(ceil(finish - now), 0)
    write = {string.format('%.14g', used), math.max(math.ceil((finish - now) * 1000), 1) + 60000}
  end
  answer[i * 3 - 2], answer[i * 3 - 1], answer[i * 3] = wait, left, reset
  if wait == 0 then
    return {key, write[1], write[2]}
  end
  return nil
end

for i, key in ipairs(KEYS) do
  local a = (i - 1) * 8 + 1
  local write = decide(i, key, a)
  if ARGV[a + 3] == '1' then
    if write then writes[#writes + 1] = write end
  elseif write then
    writes[#writes + 1] = write
    write.real = true
  else
    passed = false
  end
end
for _, write in ipairs(writes) do
  if passed or not write.real then redis.call('SET', write[1], write[2], 'PX', write[3]) end
end
return answer
"""
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
