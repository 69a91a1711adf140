-- What a load balancer does with a request, as the balancer last wrote it into the file in ROUTES: for each door the rules of
-- its listener by priority; the first whose conditions all hold decides.
local table_of = {}

local function matches(pattern, text)
  -- `*` and `?` as in the API; everything else is plain.
  pattern = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return text ~= nil and text:match("^" .. pattern .. "$") ~= nil
end

local function any(patterns, text)
  for _, pattern in ipairs(patterns) do
    if matches(pattern, text) then return true end
  end
  return false
end

local function holds(condition, txn)
  local field, values = condition.field, condition.values
  if field == "path-pattern" then return any(values, txn.sf:path()) end
  if field == "host-header" then
    return any(values, (txn.sf:req_hdr("host") or ""):lower():gsub(":%d+$", ""))
  end
  if field == "http-header" then return any(values, txn.sf:req_hdr(condition.name)) end
  if field == "http-request-method" then return any(values, txn.sf:method()) end
  if field == "query-string" then
    for _, pair in ipairs(values) do
      if any({ pair.value }, txn.sf:url_param(pair.key)) then return true end
    end
  end
  return false
end

local function group_of(groups)
  local sum = 0
  for _, group in ipairs(groups) do sum = sum + group.weight end
  if sum == 0 then return nil end
  local at = math.random(sum)
  for _, group in ipairs(groups) do
    at = at - group.weight
    if at <= 0 then return group.backend end
  end
end

core.register_action("route", { "http-req" }, function(txn)
  for _, rule in ipairs(table_of[txn.f:fe_name()] or {}) do
    local all = true
    for _, condition in ipairs(rule.conditions) do
      all = all and holds(condition, txn)
    end
    if all then
      if rule.status then
        local reply = txn:reply()
        reply:set_status(rule.status)
        reply:add_header("content-type", rule.content_type or "text/plain")
        if rule.location then reply:add_header("location", rule.location) end
        reply:set_body(rule.body or "")
        txn:done(reply)
      end
      txn:set_var("txn.backend", group_of(rule.groups) or "nobody")
      return
    end
  end
  txn:set_var("txn.backend", "nobody")
end)

core.register_cli({ "new", "routes" }, "new routes: read the file in ROUTES again", function(applet)
  local read, result = pcall(dofile, os.getenv("ROUTES"))
  if read then table_of = result end
  applet:send(read and "done\n" or ("refused: " .. tostring(result) .. "\n"))
end)
