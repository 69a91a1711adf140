"""The load balancers of the AWS peer: haproxy does what the ELBv2 API was told.

A target group is a backend, a listener a door (a port on 127.0.0.1), a rule an entry of routes.lua. Who is in a target group
says the scheduler (ecs.py); whether a target is healthy says haproxy, by its own probes: two good ones to come in, three bad
ones to go out. A target that leaves gets no new request, its last requests are answered, and only then does its task hear
that it may end."""
import csv
import io
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field

GROUPS, DOORS = 240, 80
# A hundred times what is usual in the cloud.
INTERVAL_MS, RISE, FALL = 250, 2, 3
# How long after its start a target that never answered well counts as unhealthy instead of initial.
PROBATION = FALL * INTERVAL_MS / 1000 + 0.4


@dataclass
class Target:
    group: str
    address: str
    port: int
    server: str
    since: float
    state: str = "initial"
    reason: str = "Elb.InitialHealthChecking"
    description: str = "Initial health checks in progress"
    sessions: int = 0
    was_healthy: bool = False
    gone: threading.Event = field(default_factory=threading.Event)


def config(folder, doors, registry_door, registry, host):
    """haproxy's configuration: everything that can be made while it runs is made then."""
    text = f"""
global
  stats socket {folder}/haproxy.sock mode 600 level admin
  maxconn 4000
  lua-load {os.path.dirname(os.path.abspath(__file__))}/routes.lua
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "%ft %b/%s %ST %ts %Tr %HM %HP"
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check 1s
  option dontlog-normal
  # As a load balancer in the cloud: it tries one target, once.
  retries 0
  # The next request may go to another target.
  option http-server-close
  http-reuse never
backend nobody
# Tasks' images: ECR in the emulator, which asks for a user.
listen registry
  bind 127.0.0.1:{registry_door}
  http-request set-header Authorization "Basic QVdTOnRlc3Q="
  server emulator 127.0.0.1:{registry} namespace {host}
"""
    for n, port in enumerate(doors):
        text += f"""
frontend door{n}
  bind 127.0.0.1:{port} namespace {host}
  http-request lua.route
  use_backend %[var(txn.backend)]
"""
    for n in range(GROUPS):
        text += f"""
backend group{n}
  balance roundrobin
  option httpchk
  http-check send meth GET uri-lf "%[str(group{n}),map({folder}/health.map,/)]" hdr user-agent ELB-HealthChecker/2.0
  http-check expect status 200-299
"""
    return text


class Haproxy:
    def __init__(self, path):
        self.path = path

    def tell(self, *commands):
        """Runs commands in one go; returns what they said."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(self.path)
            line.sendall((";".join(commands) + "\n").encode())
            said = b""
            while part := line.recv(65536):
                said += part
        return said.decode().strip()

    def stat(self, kinds):
        """`show stat` of 1 frontends, 2 backends, 4 servers, as dictionaries."""
        return list(csv.DictReader(io.StringIO(self.tell(f"show stat -1 {kinds} -1").removeprefix("# "))))


class Balancer:
    def __init__(self, folder, doors, elbv2):
        """`elbv2(operation, parameters)` asks the emulator."""
        self.folder, self.doors, self.elbv2 = folder, doors, elbv2
        self.haproxy = Haproxy(str(folder / "haproxy.sock"))
        self.lock = threading.RLock()
        self.backend_of = {}  # target group -> number of its backend
        self.free_backends = list(range(GROUPS))
        self.door_of = {}  # listener -> number of its door
        self.free_doors = list(range(len(doors)))
        self.rules = {}  # listener -> its rules, ready for routes.lua
        self.listeners_of = {}  # load balancer -> its listeners
        self.names = {}  # load balancer -> its DNS name
        self.ports = {}  # listener -> the port it was made for
        self.members = {}  # service -> {(group, address, port)}
        self.targets = {}  # (group, address, port) -> Target
        self.count = 0
        self.awake = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    # ---- rules ------------------------------------------------------------------------------------------------------

    def group(self, arn):
        """The backend of a target group; made when it is first heard of."""
        with self.lock:
            if arn not in self.backend_of:
                n = self.backend_of[arn] = self.free_backends.pop(0)
                self.health_path(arn)
                return n
            return self.backend_of[arn]

    def health_path(self, arn):
        found = self.elbv2("DescribeTargetGroups", {"TargetGroupArns": [arn]})["TargetGroups"][0]
        name, path = f"group{self.backend_of[arn]}", found.get("HealthCheckPath") or "/"
        self.haproxy.tell(f"del map {self.folder}/health.map {name}", f"add map {self.folder}/health.map {name} {path}")

    def changed(self, operation, parameters, answer):
        """Takes over what a call to the API changed."""
        if operation in ("CreateTargetGroup", "ModifyTargetGroup"):
            for arn in re.findall(r"<TargetGroupArn>([^<]+)</TargetGroupArn>", answer):
                if arn in self.backend_of:
                    self.health_path(arn)
        elif operation == "DeleteTargetGroup":
            self.forget_group(parameters.get("TargetGroupArn"))
        else:
            named = [value for name, value in parameters.items() if name.endswith("Arn") or ".RuleArn" in name]
            named += re.findall(r"<LoadBalancerArn>([^<]+)</LoadBalancerArn>", answer)
            for arn in {found for found in map(balancer_of, named) if found}:
                self.read(arn)

    def read(self, arn):
        """Reads the listeners and rules of one load balancer and lets haproxy work by them."""
        with self.lock:
            try:
                balancer = self.elbv2("DescribeLoadBalancers", {"LoadBalancerArns": [arn]})["LoadBalancers"][0]
                self.names[arn] = balancer["DNSName"]
                listeners = self.elbv2("DescribeListeners", {"LoadBalancerArn": arn})["Listeners"]
            except Exception as error:
                if "NotFound" not in type(error).__name__:
                    raise
                self.names.pop(arn, None)
                listeners = []
            here = {}
            for listener in listeners:
                rules = self.elbv2("DescribeRules", {"ListenerArn": listener["ListenerArn"]})["Rules"]
                rules = sorted(rules, key=lambda rule: int(rule["Priority"]))
                here[listener["ListenerArn"]] = [self.rule(r) for r in [*rules, {"Actions": listener["DefaultActions"]}]]
                self.ports[listener["ListenerArn"]] = listener.get("Port")
            for gone in set(self.listeners_of.get(arn, ())) - set(here):
                self.rules.pop(gone, None)
                self.free_doors.append(self.door_of.pop(gone))
            self.listeners_of[arn] = list(here)
            for listener, rules in here.items():
                if listener not in self.door_of:
                    self.door_of[listener] = self.free_doors.pop(0)
                self.rules[listener] = rules
            self.write()

    def rule(self, rule):
        conditions = []
        for c in rule.get("Conditions", []):
            more = next((c[key] for key in c if key.endswith("Config") and c[key]), {})
            values = c.get("Values") or more.get("Values") or []
            if c["Field"] == "query-string":
                values = [{"key": v.get("Key", ""), "value": v.get("Value", "")} for v in values]
            if c["Field"] == "host-header":
                values = [v.lower() for v in values]
            conditions.append({"field": c["Field"], "values": values, "name": more.get("HttpHeaderName", "").lower()})
        action = sorted(rule["Actions"], key=lambda a: a.get("Order", 99999))[-1]
        known = {"conditions": conditions}
        if action["Type"] == "forward":
            groups = (action.get("ForwardConfig") or {}).get("TargetGroups") or [{"TargetGroupArn": action["TargetGroupArn"]}]
            known["arns"] = [g["TargetGroupArn"] for g in groups]
            known["groups"] = [{"backend": f"group{self.group(g['TargetGroupArn'])}", "weight": g.get("Weight", 1)} for g in groups]
        elif action["Type"] == "fixed-response":
            answer = action["FixedResponseConfig"]
            known |= {"status": int(answer["StatusCode"]), "body": answer.get("MessageBody", ""),
                      "content_type": answer.get("ContentType", "text/plain")}
        elif action["Type"] == "redirect":
            to = action["RedirectConfig"]
            known |= {"status": 301 if to["StatusCode"] == "HTTP_301" else 302,
                      "location": f"{to.get('Protocol', 'https').lower()}://{to.get('Host', '')}{to.get('Path', '/')}"}
        else:
            known |= {"status": 501, "body": f"no {action['Type']} here"}
        return known

    def write(self):
        table = {f"door{self.door_of[listener]}": [{k: v for k, v in r.items() if k != "arns"} for r in rules]
                 for listener, rules in self.rules.items()}
        path = self.folder / "routes.table"
        path.with_suffix(".new").write_text(f"return {lua(table)}\n")
        path.with_suffix(".new").rename(path)
        said = self.haproxy.tell("new routes")
        if said != "done":
            raise RuntimeError(f"haproxy: {said}")

    def used(self, group):
        """Whether some rule forwards to the group, with whatever weight."""
        with self.lock:
            return any(group in rule.get("arns", ()) for rules in self.rules.values() for rule in rules)

    def balancers_of(self, group):
        with self.lock:
            return [arn for arn, listeners in self.listeners_of.items()
                    if any(group in rule.get("arns", ()) for listener in listeners for rule in self.rules.get(listener, ()))]

    def describe(self):
        with self.lock:
            return [{"listener": listener, "balancer": arn, "name": self.names.get(arn), "port": self.ports.get(listener),
                     "door": self.doors[self.door_of[listener]]}
                    for arn, listeners in self.listeners_of.items() for listener in listeners]

    # ---- targets ----------------------------------------------------------------------------------------------------

    def set_members(self, service, wanted):
        """The targets of a service are these; new ones come in, others leave in the background."""
        with self.lock:
            before = self.members.get(service, set())
            self.members[service] = wanted
            others = set().union(*(m for s, m in self.members.items() if s != service))
            for key in wanted - before:
                self.enter(key)
            leaving = [self.targets[key] for key in before - wanted - others if key in self.targets]
            for target in leaving:
                drain(target)
        for target in leaving:
            threading.Thread(target=self.leave, args=(target,), daemon=True).start()

    def enter(self, key):
        group, address, port = key
        if key in self.targets and self.targets[key].state != "draining":
            return
        try:
            backend = f"group{self.group(group)}"
            self.elbv2("RegisterTargets", {"TargetGroupArn": group, "Targets": [{"Id": address, "Port": port}]})
        except Exception as error:
            # A group that was deleted under a service: its tasks are never healthy.
            print(f"{group}: {error}", flush=True)
            return
        self.count += 1
        server = f"{backend}/t{self.count}"
        # Not by a bare `enable server`: that counts as healthy before anybody looked.
        said = self.haproxy.tell(
            f"add server {server} {address}:{port} check inter {INTERVAL_MS}ms rise {RISE} fall {FALL}",
            f"enable health {server}", f"set server {server} state drain", f"set server {server} health down",
            f"set server {server} state ready")
        if "New server registered" not in said:
            raise RuntimeError(f"haproxy: {said}")
        self.targets[key] = Target(group, address, port, server, time.monotonic())
        self.awake.set()

    def leave(self, target):
        """No new requests; the last ones are answered; then it is gone."""
        self.haproxy.tell(f"set server {target.server} state drain")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            backend, name = target.server.split("/")
            mine = [s for s in self.haproxy.stat(4) if (s["pxname"], s["svname"]) == (backend, name)]
            if all(int(s["scur"] or 0) == 0 and int(s["qcur"] or 0) == 0 for s in mine):
                break
            time.sleep(0.02)
        self.haproxy.tell(f"set server {target.server} state maint")
        while time.monotonic() < end:
            said = self.haproxy.tell(f"del server {target.server}")
            if "deleted" in said or "No such" in said:
                break
            time.sleep(0.02)
        try:
            self.elbv2("DeregisterTargets", {"TargetGroupArn": target.group, "Targets": [{"Id": target.address, "Port": target.port}]})
        except Exception as error:
            # Its group may have been deleted meanwhile.
            print(f"{target}: {error}", flush=True)
        with self.lock:
            key = target.group, target.address, target.port
            if self.targets.get(key) is target:
                del self.targets[key]
        target.gone.set()

    def wait_gone(self, address, patience=25):
        """Returns when no target has this address any more."""
        with self.lock:
            waiting = [t for (_, a, _), t in self.targets.items() if a == address]
        for target in waiting:
            target.gone.wait(patience)

    def forget_group(self, arn):
        with self.lock:
            leaving = [target for target in self.targets.values() if target.group == arn and target.state != "draining"]
            for target in leaving:
                drain(target)
        for target in leaving:
            self.leave(target)
        with self.lock:
            if arn in self.backend_of:
                self.free_backends.append(self.backend_of.pop(arn))

    def states(self):
        with self.lock:
            return [{"group": t.group, "address": t.address, "port": t.port, "state": t.state, "reason": t.reason,
                     "description": t.description} for t in self.targets.values()]

    def watch(self):
        while True:
            self.awake.wait()
            time.sleep(0.1)
            try:
                self.look()
            except OSError as error:
                print(f"haproxy: {error}", flush=True)
            with self.lock:
                if not self.targets:
                    self.awake.clear()

    def look(self):
        seen = {f"{s['pxname']}/{s['svname']}": s for s in self.haproxy.stat(4)}
        now = time.monotonic()
        with self.lock:
            for target in self.targets.values():
                said = seen.get(target.server)
                if said is None or target.state == "draining":
                    continue
                if said["status"].startswith("UP"):
                    # `UP 1/3` is one that failed a probe and has not failed enough of them.
                    target.state, target.reason, target.description = "healthy", "", ""
                    target.was_healthy = True
                elif target.was_healthy or now - target.since > PROBATION:
                    target.state = "unhealthy"
                    target.reason, target.description = why(said)


def drain(target):
    target.state, target.reason = "draining", "Target.DeregistrationInProgress"
    target.description = "Target deregistration is in progress"


def why(said):
    check, code = said.get("check_status", "").removeprefix("* "), said.get("check_code")
    if check.startswith("L7") and code:
        return "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{code}]"
    if check.endswith("TOUT"):
        return "Target.Timeout", "Request timed out"
    return "Target.FailedHealthChecks", "Health checks failed"


def balancer_of(arn):
    """The load balancer that a listener or a rule belongs to."""
    found = re.match(r"(arn:[^:]+:elasticloadbalancing:[^:]*:[^:]*:)(?:loadbalancer|listener|listener-rule)/((?:app|net)/[^/]+/[^/]+)", arn or "")
    return found and f"{found[1]}loadbalancer/{found[2]}"


def lua(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"[{lua(k)}]={lua(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(map(lua, value)) + "}"
    if isinstance(value, (int, float)):
        return str(value)
    # Decimal escapes are the only ones that need no thought.
    return '"' + "".join(c if c.isascii() and c.isalnum() else "".join(f"\\{b:03d}" for b in c.encode()) for c in str(value)) + '"'
