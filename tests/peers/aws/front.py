"""The one door to all AWS emulators: sends each call to the emulator of its service, keeps a list of the calls, and answers
some of them otherwise when a test asked for that. Below `/_peer/` it takes orders from tests and from the scheduler."""
import http.client
import http.server
import json
import re
import struct
import threading
import time
import traceback
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape

from botocore.validate import ParamValidator

TARGETS = {"AmazonEC2ContainerServiceV20141113": "ecs", "Logs_20140328": "logs", "secretsmanager": "secretsmanager",
           "AmazonSSM": "ssm", "AnyScaleFrontendService": "application-autoscaling",
           "AmazonEC2ContainerRegistry_V20150921": "ecr", "GraniteServiceVersion20100801": "monitoring"}
# Where a call came in under the name of its signature.
NAMES = {"monitoring": "cloudwatch", "elasticloadbalancing": "elbv2"}
# Errors that the older protocol names otherwise.
QUERY_ERRORS = {"ThrottlingException": (400, "Throttling"), "AccessDeniedException": (403, "AccessDenied"),
                "ExpiredTokenException": (403, "ExpiredToken")}
CHANGES = ("Create", "Modify", "Delete", "Set")
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "host", "expect", "x-peer-own"}


class Cut(Exception):
    """The connection ends here, without an answer."""


class Front:
    def __init__(self, port, emulator_of, otherwise, account):
        """`emulator_of`: service -> port on 127.0.0.1; `otherwise`: the port for all others."""
        self.port, self.emulator_of, self.otherwise, self.account = port, emulator_of, otherwise, account
        self.lock = threading.Lock()
        self.calls, self.rules, self.last = [], {}, {}
        self.count = 0
        self.balancer = self.images = self.api = None
        self.containers = {}  # id -> labels of its metrics
        self.cgroup = ""
        self.models = {}  # service -> how its requests look
        outer = self

        class Door(Handler):
            front = outer

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, request, address):
                print(traceback.format_exc(), flush=True)

        self.server = Server(("127.0.0.1", port), Door)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rule_for(self, call):
        """The first rule that has something to say about a call; counts down."""
        with self.lock:
            for number, rule in list(self.rules.items()):
                if rule.get("service") not in (None, call["service"]) or rule.get("operation") not in (None, call["operation"]):
                    continue
                if rule.get("containing") and rule["containing"] not in json.dumps(call["parameters"]):
                    continue
                if rule.get("key") not in (None, call["key"]):
                    continue
                if rule.get("after", 0) > 0:
                    rule["after"] -= 1
                    continue
                if rule.get("times") is not None:
                    if rule["times"] <= 0:
                        continue
                    rule["times"] -= 1
                return number, dict(rule)
        return None, None

    def add_call(self, call):
        with self.lock:
            self.count += 1
            call["number"] = self.count
            self.calls.append(call)
            del self.calls[:-50000]

    # ---- orders -----------------------------------------------------------------------------------------------------

    def order(self, method, path, said):
        if path == "/_peer/call":
            return self.call(said)
        if path == "/_peer/calls":
            with self.lock:
                return [c for c in self.calls if c["number"] > said.get("after", 0)]
        if path == "/_peer/rules":
            with self.lock:
                self.count += 1
                self.rules[self.count] = said
                return self.count
        if path == "/_peer/rules/end":
            with self.lock:
                self.rules.pop(said, None)
            return None
        if path == "/_peer/image":
            return self.images.push(said["repository"], said["tag"], said["behaviour"], said["revision"])
        if path == "/_peer/listeners":
            return self.balancer.describe()
        if path == "/_peer/targets":
            return self.balancer.states()
        if path == "/_peer/members":
            self.balancer.set_members(said["service"], {tuple(member) for member in said["members"]})
            return None
        if path == "/_peer/gone":
            self.balancer.wait_gone(said)
            return None
        if path == "/_peer/container":
            self.containers[said["id"]] = said["labels"]
            return None
        if path == "/_peer/used":
            return self.balancer.used(said)
        raise KeyError(f"no order {method} {path}")

    def metrics(self):
        """What cAdvisor would say of the containers that run."""
        text = "# TYPE container_cpu_usage_seconds_total counter\n"
        for container, labels in list(self.containers.items()):
            try:
                seconds = cpu_seconds(self.cgroup, container)
            except OSError:
                # Its group goes with it.
                del self.containers[container]
                continue
            pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
            text += f"container_cpu_usage_seconds_total{{{pairs}}} {seconds:.6f}\n"
        return text

    def call(self, said):
        from botocore.exceptions import ClientError
        try:
            done = self.api(said["service"], said["operation"], said.get("parameters") or {})
        except ClientError as error:
            return {"error": error.response["Error"]}
        done.pop("ResponseMetadata", None)
        return {"done": done}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A thread and a connection each: the same for the emulators behind.
    disable_nagle_algorithm = True
    front = None

    def log_message(self, *_):
        pass

    def do_POST(self):
        try:
            self.serve()
        except (Cut, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_POST

    def body(self):
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        body = self.body()
        if self.path.startswith("/_peer/"):
            try:
                done = self.front.order(self.command, self.path, json.loads(body or b"null"))
                self.answer(200, [("Content-Type", "application/json")], json.dumps(done, default=plain).encode())
            except Exception:
                self.answer(500, [("Content-Type", "text/plain")], traceback.format_exc().encode())
            return
        if self.path == "/metrics":
            self.answer(200, [("Content-Type", "text/plain; version=0.0.4")], self.front.metrics().encode())
            return
        call = self.understood(body)
        own = self.headers.get("x-peer-own") is not None
        number, rule = (None, None) if own else self.front.rule_for(call)
        call["rule"] = number
        if not own:
            self.front.add_call(call)
        try:
            status, headers, said = self.by_rule(rule, call, body, number) if rule else self.ask(call, body)
        except Cut:
            call["status"] = 0
            raise
        call["status"] = status
        self.answer(status, headers, said)

    def understood(self, body):
        """What the call is: service, operation, parameters, access key."""
        signed = re.search(r"Credential=([^/]*)/[^/]*/([^/]*)/([^/]*)/", self.headers.get("Authorization") or "")
        target = self.headers.get("X-Amz-Target") or ""
        path, _, query = self.path.partition("?")
        kind = self.headers.get("Content-Type") or ""
        parameters, operation = {}, target.rpartition(".")[2]
        if "json" in kind:
            try:
                parameters = json.loads(body or b"{}")
            except ValueError:
                pass
        elif "form" in kind or "Action=" in query:
            pairs = urllib.parse.parse_qsl(query + "&" + body.decode("utf-8", "replace"), keep_blank_values=True)
            parameters = dict(pairs)
            operation = parameters.pop("Action", operation)
        if found := re.match(r"/service/([^/]+)/operation/([^/]+)$", path):
            operation = found[2]
        service = signed[3] if signed else TARGETS.get(target.partition(".")[0], "sts" if "Role" in operation else "")
        return {"service": NAMES.get(service, service), "operation": operation, "parameters": parameters, "region": signed and signed[2],
                "key": signed and signed[1], "path": path, "at": time.time(), "status": None}

    def ask(self, call, body):
        front = self.front
        if refused := self.refused(call):
            return self.error(*refused)
        service = {"cloudwatch": "monitoring", "elbv2": "elasticloadbalancing"}.get(call["service"], call["service"])
        upstream = http.client.HTTPConnection("127.0.0.1", front.emulator_of.get(service, front.otherwise), timeout=120)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            headers["Host"] = self.headers.get("Host", "127.0.0.1")
            upstream.request(self.command, self.path, body, headers)
            reply = upstream.getresponse()
            said = reply.read()
            status, given = reply.status, reply.getheaders()
        finally:
            upstream.close()
        if call["service"] == "elbv2" and status < 300:
            said = self.load_balancing(call, said)
        if status < 300 and self.command == "POST":
            front.last[call["service"], call["operation"], body] = status, given, said
        return status, given, said

    def load_balancing(self, call, said):
        balancer = self.front.balancer
        if call["operation"] == "DescribeRules":
            return self.default_rules(call["parameters"], said)
        if call["operation"].startswith(CHANGES):
            balancer.changed(call["operation"], call["parameters"], said.decode())
        if call["operation"] == "DescribeTargetHealth":
            group = call["parameters"].get("TargetGroupArn")
            return with_states(said.decode(), balancer.states(), group, balancer.used(group)).encode()
        return said

    def default_rules(self, parameters, said):
        """The emulator has no rules for the default actions of listeners; ELBv2 does."""
        wanted = [default_listener(value) for name, value in parameters.items() if name.startswith("RuleArns.")]
        if "ListenerArn" in parameters and b"<NextMarker>" not in said:
            wanted.append(parameters["ListenerArn"])
        for listener in filter(None, wanted):
            body = urllib.parse.urlencode({"Action": "DescribeListeners", "Version": "2015-12-01", "ListenerArns.member.1": listener})
            upstream = http.client.HTTPConnection("127.0.0.1", self.front.otherwise, timeout=60)
            upstream.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded", "Authorization": self.headers.get("Authorization", "")})
            actions = re.search(rb"<DefaultActions>(.*?)</DefaultActions>", upstream.getresponse().read(), re.S)
            upstream.close()
            if actions:
                rule = (f"<member><RuleArn>{default_rule(listener)}</RuleArn><Priority>default</Priority><Conditions/><Actions>".encode()
                        + actions[1] + b"</Actions><IsDefault>true</IsDefault></member>")
                said = said.replace(b"<Rules/>", b"<Rules></Rules>").replace(b"</Rules>", rule + b"</Rules>")
        return said

    def refused(self, call):
        """What AWS refuses and no emulator does."""
        if call["service"] == "elbv2" and call["operation"] in ("ModifyRule", "DeleteRule") and default_listener(call["parameters"].get("RuleArn")):
            return 400, "OperationNotPermitted", f"Default rule '{call['parameters']['RuleArn']}' cannot be modified"
        if wrong := self.misshapen(call):
            return wrong
        if call["service"] != "ecs" or call["operation"] not in ("CreateService", "UpdateService"):
            return None
        for lb in call["parameters"].get("loadBalancers") or []:
            group = lb.get("targetGroupArn")
            if group and not self.front.balancer.used(group):
                return (400, "InvalidParameterException",
                        f"The target group with targetGroupArn {group} does not have an associated load balancer.")
        return None

    def misshapen(self, call):
        """Parameters of wrong types, which no emulator minds."""
        model = self.front.models.get(call["service"])
        if model is None or call["operation"] not in model.operation_names:
            return None
        shape = model.operation_model(call["operation"]).input_shape
        for reason, where, more in ParamValidator().validate(without_nulls(call["parameters"]), shape)._errors if shape else ():
            if reason == "invalid type":
                return 400, "SerializationException", f"{type(more['param']).__name__} value of {where} can not be converted to {' or '.join(more['valid_types'])}"
            if reason == "missing required field":
                return 400, "InvalidParameterException", f"{more['required_name']} of {where or 'the request'} can not be blank."
        return None

    def by_rule(self, rule, call, body, number):
        kind = rule["kind"]
        if kind == "delay":
            time.sleep(rule["seconds"])
            return self.ask(call, body)
        if kind == "lost":
            self.ask(call, body)
            raise Cut
        if kind == "cut":
            raise Cut
        if kind == "silence":
            # Until the caller gives up or the test ends the rule.
            self.connection.settimeout(0.1)
            while number in self.front.rules:
                try:
                    if not self.connection.recv(1):
                        break
                except TimeoutError:
                    continue
            raise Cut
        if kind == "stale":
            before = self.front.last.get((call["service"], call["operation"], body))
            return before or self.ask(call, body)
        if kind == "answer":
            status, _, given = self.ask(call, body)
            return status, [("Content-Type", self.headers.get("Content-Type", ""))], json.dumps(merged(json.loads(given), rule["body"])).encode()
        if kind == "instead":
            return 200, [("Content-Type", self.headers.get("Content-Type", ""))], json.dumps(rule["body"]).encode()
        if kind == "error":
            return self.error(rule["status"], rule["code"], rule["message"])
        raise KeyError(f"no rule {kind}")

    def error(self, status, code, message):
        """An error as the caller's protocol has it."""
        kind = self.headers.get("Content-Type") or ""
        if "smithy-protocol" in self.headers:
            body = b"\xa2" + cbor("__type") + cbor(code) + cbor("message") + cbor(message)
            return status, [("smithy-protocol", "rpc-v2-cbor"), ("Content-Type", "application/cbor")], body
        if "json" in kind:
            return status, [("Content-Type", kind), ("x-amzn-ErrorType", code)], json.dumps({"__type": code, "message": message}).encode()
        status, code = QUERY_ERRORS.get(code, (status, code))
        who = "Receiver" if status >= 500 else "Sender"
        return status, [("Content-Type", "text/xml")], (
            f"<ErrorResponse><Error><Type>{who}</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
            "<RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>").encode()


def default_rule(listener):
    return listener.replace(":listener/", ":listener-rule/") + "/0000000000000000"


def default_listener(rule):
    """The listener whose default rule this is."""
    return rule.removesuffix("/0000000000000000").replace(":listener-rule/", ":listener/") if (rule or "").endswith("/0000000000000000") else None


def with_states(xml, states, group, used):
    """DescribeTargetHealth with what haproxy found."""
    known = {(s["address"], str(s["port"])): s for s in states if s["group"] == group}

    def member(found):
        address, port = (re.search(f"<{tag}>([^<]*)</{tag}>", found[0]) for tag in ("Id", "Port"))
        state = known.get((address and address[1], port and port[1]))
        if not used:
            state = {"state": "unused", "reason": "Target.NotInUse", "description": "Target group is not configured to receive traffic from the load balancer"}
        if state is None:
            return found[0]
        health = f"<State>{state['state']}</State>"
        if state["reason"]:
            health += f"<Reason>{escape(state['reason'])}</Reason><Description>{escape(state['description'])}</Description>"
        return re.sub(r"<TargetHealth>.*?</TargetHealth>", lambda _: f"<TargetHealth>{health}</TargetHealth>", found[0], flags=re.S)

    return re.sub(r"<member>.*?</member>", member, xml, flags=re.S)


def cpu_seconds(cgroup, container):
    below = Path(cgroup.strip("/")) / f"libpod-{container}"
    one = Path("/sys/fs/cgroup/cpuacct") / below / "cpuacct.usage"
    if one.parent.parent.parent.is_dir():
        return int(one.read_text()) / 1e9
    stat = (Path("/sys/fs/cgroup") / below / "cpu.stat").read_text()
    return int(re.search(r"usage_usec (\d+)", stat)[1]) / 1e6


def without_nulls(value):
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return [without_nulls(member) for member in value] if isinstance(value, list) else value


def merged(into, change):
    """A merge patch; a list patches each member of a list."""
    if isinstance(into, dict) and isinstance(change, dict):
        for name, value in change.items():
            into[name] = merged(into.get(name), value)
        return into
    if isinstance(into, list) and isinstance(change, dict):
        return [merged(member, change) for member in into]
    return change


def cbor(text):
    data = text.encode()
    return b"\x79" + struct.pack(">H", len(data)) + data


def plain(value):
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
