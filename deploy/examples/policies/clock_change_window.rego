# The same window by the clock of the execution: the payload need not bring the time.
package clock_change_window

deploy_days := {"Monday", "Tuesday", "Wednesday", "Thursday"}

now := time.now_ns()

hour := time.clock(now)[0]

in_window if {
	time.weekday(now) in deploy_days
	hour >= 10
	hour < 16
}

deny contains msg if {
	input.environment == "prod"
	not in_window
	msg := sprintf("%s: outside change window (now %s %d UTC)", [input.service, time.weekday(now), hour])
}
