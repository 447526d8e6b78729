"""What the queue does on the server, each script one atomic step.

KEYS[1] is the prefix, with a hash tag: all keys share a slot.

    :ring       list    tenants with entries, in the order in which they are served
    :s:TENANT   stream  entries {run, user}, read by one consumer group
    :z:TENANT   zset    runs that wait, by their number: presence, and places in line
    :users      hash    runs that wait, by tenant and user
    :total      count   of all
    :held       zset    runs that a place is kept for, by when it ends (ms)
    :h:OWNER    zset    the same of one tenant and user
    :number     count   gives the numbers
    :bell       stream  rung when something is put

A tenant is in the ring as long as its stream exists.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "workers"

# What RESERVE answers.
RESERVED: Final = 0
LINE_FULL: Final = 1
SHARE_FULL: Final = 2

# ARGV: tenant, run, user, bound in all, bound of a user, milliseconds for which it is kept.
RESERVE: Final = """
local p, t, run, user = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local owner = t .. '\\0' .. user
local held, own = p .. ':held', p .. ':h:' .. owner
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
redis.call('ZREMRANGEBYSCORE', own, '-inf', now)
if redis.call('ZSCORE', own, run) or redis.call('ZSCORE', p .. ':z:' .. t, run) then return 0 end
local total = tonumber(redis.call('GET', p .. ':total') or '0')
if total + redis.call('ZCARD', held) >= tonumber(ARGV[4]) then return 1 end
local users = tonumber(redis.call('HGET', p .. ':users', owner) or '0')
if users + redis.call('ZCARD', own) >= tonumber(ARGV[5]) then return 2 end
for _, key in ipairs({held, own}) do
  redis.call('ZADD', key, now + ARGV[6], run)
  redis.call('PEXPIRE', key, ARGV[6])
end
return 0
"""

# ARGV: tenant, run, user.
RELEASE: Final = """
local p, run = KEYS[1], ARGV[2]
redis.call('ZREM', p .. ':held', run)
return redis.call('ZREM', p .. ':h:' .. ARGV[1] .. '\\0' .. ARGV[3], run)
"""

# ARGV: tenant, run, user. 1: put; 0: it waits already.
PUT: Final = """
local p, t, run, user = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local places, stream = p .. ':z:' .. t, p .. ':s:' .. t
redis.call('ZREM', p .. ':held', run)
redis.call('ZREM', p .. ':h:' .. t .. '\\0' .. user, run)
if redis.call('ZSCORE', places, run) then return 0 end
redis.call('ZADD', places, redis.call('INCR', p .. ':number'), run)
redis.call('HINCRBY', p .. ':users', t .. '\\0' .. user, 1)
redis.call('INCR', p .. ':total')
if redis.call('EXISTS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
  redis.call('RPUSH', p .. ':ring', t)
end
redis.call('XADD', stream, '*', 'run', run, 'user', user)
redis.call('XADD', p .. ':bell', 'MAXLEN', '1', '*', 'put', '1')
return 1
"""

# ARGV: consumer, milliseconds until what was taken is taken again. {tenant, entry, fields}.
TAKE: Final = """
local p, consumer, idle = KEYS[1], ARGV[1], ARGV[2]
local ring = p .. ':ring'
for _ = 1, redis.call('LLEN', ring) do
  local t = redis.call('LMOVE', ring, ring, 'LEFT', 'RIGHT')
  local stream = p .. ':s:' .. t
  local claimed = redis.call(
    'XAUTOCLAIM', stream, 'workers', consumer, idle, '0-0', 'COUNT', 1)
  local entry = claimed[2][1]
  if not entry then
    local read = redis.call(
      'XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', 1, 'STREAMS', stream, '>')
    if read then entry = read[1][2][1] end
  end
  if entry then return {t, entry[1], entry[2]} end
end
return false
"""

# ARGV: tenant, entry, run, user.
DONE: Final = """
local p, t, entry, run, user = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local places, stream = p .. ':z:' .. t, p .. ':s:' .. t
if redis.call('EXISTS', stream) == 0 then return 0 end
redis.call('XACK', stream, 'workers', entry)
if redis.call('XDEL', stream, entry) == 0 then return 0 end
if redis.call('ZREM', places, run) == 1 then
  redis.call('DECR', p .. ':total')
  if redis.call('HINCRBY', p .. ':users', t .. '\\0' .. user, -1) <= 0 then
    redis.call('HDEL', p .. ':users', t .. '\\0' .. user)
  end
end
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream, places)
  redis.call('LREM', p .. ':ring', 0, t)
end
return 1
"""

# ARGV: tenant, entry, run, user.
PUT_BACK: Final = """
local p, t, entry, run, user = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stream = p .. ':s:' .. t
if redis.call('EXISTS', stream) == 0 then return 0 end
redis.call('XACK', stream, 'workers', entry)
if redis.call('XDEL', stream, entry) == 0 then return 0 end
redis.call('XADD', stream, '*', 'run', run, 'user', user)
return 1
"""

# ARGV: tenant, run. Tenants are served in turn, so each other one has at most as many
# before a run as its own has.
POSITION: Final = """
local p, t, run = KEYS[1], ARGV[1], ARGV[2]
local rank = redis.call('ZRANK', p .. ':z:' .. t, run)
if not rank then return false end
local place = rank + 1
for _, other in ipairs(redis.call('LRANGE', p .. ':ring', 0, -1)) do
  if other ~= t then
    place = place + math.min(rank + 1, redis.call('ZCARD', p .. ':z:' .. other))
  end
end
return place
"""
