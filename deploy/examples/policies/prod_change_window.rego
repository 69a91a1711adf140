# Production changes: Monday to Thursday, 10:00 to 16:00 UTC.
#
# The payload brings the time, as the pipeline wrote it:
#   currentTime  2026-11-19T10:00:00.000Z (any text with the hour behind the `T`, in UTC)
#   dayOfWeek    THURSDAY
package prod_change_window

deploy_days := {"MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY"}

hh := substring(input.currentTime, 11, 2)

in_window { deploy_days[upper(input.dayOfWeek)]; hh >= "10"; hh < "16" }

deny[msg] {
  input.environment == "prod"
  not in_window
  msg := sprintf("%s: outside change window (now %s %s)", [input.service, input.dayOfWeek, input.currentTime])
}
