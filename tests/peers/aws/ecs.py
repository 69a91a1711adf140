#!/usr/bin/env python3
"""ECS: the scheduler of ministack, whose tasks are real containers, made truthful where deployment tools look.

ministack (pinned; the functions named here are its own) knows nothing of load balancers, takes a task for good one second
after its start, and does at once what takes a while in the cloud. What is changed:

- a deployment is IN_PROGRESS until its tasks are up, the first one too; "steady state" and "deployment completed" are events;
- with a load balancer a task counts when it is healthy there, and old tasks live until enough new ones do; a task that is
  unhealthy after the grace period is ended and counts as failed; a task that ends first leaves the load balancer;
- failed tasks are counted without a circuit breaker too, and the pauses between starts grow; a deployment that failed without a
  rollback leaves the tasks from before it;
- a service that is deleted drains before it is INACTIVE, and keeps its name until then;
- what ECS refuses and ministack does not: unknown clusters and task definitions, long lists, empty lists of tags, task
  definitions that Fargate cannot run;
- a call that comes again with the same client token does nothing again;
- the last lines of a container that ends reach CloudWatch Logs;
- every image is pulled for every task, its digest is known, and tags are not resolved once per deployment
  (`versionConsistency: disabled`: podman has no such call).
"""
import http.client
import json
import os
import threading
import time
from collections import defaultdict

from ministack.core.concurrency import resource_lock, spawn_background
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response, request_scope
from ministack.services import ecs

NETWORK, CGROUP, FRONT = os.environ["PEER_NETWORK"], os.environ["PEER_CGROUP"], int(os.environ["PEER_FRONT"])
# The grace period of services is divided by it, as the load balancer's intervals are shorter than in the cloud.
PACE = 20
STARTING = 0.7
KEPT_ON_SERVICE = ("placementConstraints", "placementStrategy", "availabilityZoneRebalancing", "serviceRegistries",
                   "enableECSManagedTags", "propagateTags")
KEPT_ON_DEPLOYMENT = ("networkConfiguration", "platformVersion", "serviceConnectConfiguration", "volumeConfigurations",
                      "vpcLatticeConfigurations")
STARTS_DEPLOYMENT = ("networkConfiguration", "platformVersion", "loadBalancers", "serviceRegistries",
                     "serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations")


# ---- the load balancer -----------------------------------------------------------------------------------------------

def ask(path, said=None):
    connection = http.client.HTTPConnection("127.0.0.1", FRONT, timeout=60)
    try:
        connection.request("POST", f"/_peer/{path}", json.dumps(said))
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{path}: {body.decode()}")
    return json.loads(body)


class Targets:
    """What the load balancer thinks of the tasks; looked up while somebody needs to know."""

    def __init__(self):
        self.lock, self.at, self.states, self.published = threading.Lock(), 0.0, {}, {}

    def state(self, group, address, port):
        with self.lock:
            if time.monotonic() - self.at > 0.1:
                self.states = {(t["group"], t["address"], t["port"]): t for t in ask("targets")}
                self.at = time.monotonic()
            return self.states.get((group, address, port))

    def publish(self, service, find):
        """Tells the load balancer who is behind a service; `find` says who is.

        Asked under the lock: of two threads the one that looked first must not be the one that tells last. A task that has left
        would come back in and get requests when it has ended already, or a new one would be forgotten."""
        with self.lock:
            members = find()
            if self.published.get(service, []) == members:
                return
            ask("members", {"service": service, "members": members})
            self.published[service] = members


TARGETS = Targets()


def target_keys(svc, task):
    address = ecs._task_ip(task)
    return [(lb["targetGroupArn"], address, lb.get("containerPort", 80)) for lb in svc.get("loadBalancers") or []
            if lb.get("targetGroupArn") and address]


def sync_service_targets(cluster_name, svc):
    if svc.get("loadBalancers") or svc["serviceArn"] in TARGETS.published:
        TARGETS.publish(svc["serviceArn"], lambda: members(svc))


def members(svc):
    if svc.get("status") != "ACTIVE":
        return []
    return sorted(key for task in list(ecs._tasks.values())
                  if task.get("group") == f"service:{svc['serviceName']}" and task.get("clusterArn") == svc.get("clusterArn")
                  and task.get("lastStatus") == "RUNNING" for key in target_keys(svc, task))


def carries_traffic(task):
    """Whether a task counts towards the healthy ones of its service."""
    return task.get("lastStatus") == "RUNNING" and task.get("_startup_stable", False)


def idle_first(tasks):
    """Sorts pairs of ARN and task so; returns how many carry no traffic."""
    tasks.sort(key=lambda pair: carries_traffic(pair[1]))
    return sum(not carries_traffic(task) for _, task in tasks)


def task_arn_id(task):
    return task["taskArn"].rsplit("/", 1)[-1]


def service_of(task):
    group = task.get("group", "")
    if not group.startswith("service:"):
        return None, None, None
    cluster = ecs._cluster_name_from_arn(task.get("clusterArn", ""))
    key = f"{cluster}/{group.split(':', 1)[1]}"
    return cluster, key, ecs._services.get(key)


# ---- deployments -----------------------------------------------------------------------------------------------------

def event(svc, message):
    svc["events"].insert(0, {"id": ecs.new_uuid(), "createdAt": ecs._iso(), "message": f"(service {svc['serviceName']}) {message}"})
    del svc["events"][100:]


old_make_deployment = ecs._make_deployment


def make_deployment(task_definition, desired_count, status="PRIMARY"):
    made = old_make_deployment(task_definition, desired_count, status)
    made["rolloutState"] = "IN_PROGRESS"
    made["rolloutStateReason"] = f"ECS deployment {made['id']} in progress."
    return made


old_complete = ecs._complete_service_deployment


def complete_service_deployment(cluster_name, svc_key, expected_deployment_id=None):
    svc = ecs._services.get(svc_key)
    primary = svc and ecs._primary_deployment(svc)
    before = primary and primary.get("rolloutState")
    old_complete(cluster_name, svc_key, expected_deployment_id)
    if primary and before == "IN_PROGRESS" and primary.get("rolloutState") == "COMPLETED":
        primary["rolloutStateReason"] = f"ECS deployment {primary['id']} completed."
        event(svc, f"(deployment {primary['id']}) deployment completed.")
        event(svc, "has reached a steady state.")
        account, region = get_account_id(), get_region()

        def forget_failed():
            # Long enough for whoever asks every second or two to see how it ended.
            time.sleep(5)
            with request_scope(account, region), resource_lock("ecs-service", svc_key):
                if ecs._primary_deployment(svc) is primary:
                    svc["deployments"] = [d for d in svc["deployments"] if d is primary or d.get("runningCount")]

        spawn_background(forget_failed, thread_name="forget-failed")


def schedule_completion(cluster_name, svc_key, account_id, region, healthy_task=None):
    """Follows a task from its start until it carries traffic or is ended; without a task, the deployment that a rollback
    made primary again."""

    def look(task):
        if ecs._services.get(svc_key, {}).get("status") != "ACTIVE":
            return True
        if task is not None:
            svc = ecs._services[svc_key]
            if task.get("lastStatus") != "RUNNING":
                return True
            age = time.monotonic() - started
            states = [TARGETS.state(*key) for key in target_keys(svc, task)]
            if any(s and s["state"] == "unhealthy" for s in states):
                if age > max(STARTING, svc.get("healthCheckGracePeriodSeconds", 0) / PACE):
                    end_unhealthy(svc, task, states)
                    return True
                return False
            if svc.get("loadBalancers") and (not states or any(s is None or s["state"] != "healthy" for s in states)):
                return False
            if age < STARTING:
                return False
            ecs._record_service_task_healthy(svc_key, task)
        ecs._refresh_service_state(cluster_name, f"service:{svc_key.split('/', 1)[1]}")
        ecs._reconcile_service_tasks(cluster_name, svc_key)
        ecs._complete_service_deployment(cluster_name, svc_key)
        return True

    def follow():
        with request_scope(account_id, region):
            while not look(healthy_task):
                time.sleep(0.1)
            # Until it is ended: a task that falls ill later is replaced too.
            while healthy_task is not None and carries_traffic(healthy_task):
                time.sleep(0.5)
                svc = ecs._services.get(svc_key) or {}
                states = [TARGETS.state(*key) for key in target_keys(svc, healthy_task)]
                if any(s and s["state"] == "unhealthy" for s in states):
                    end_unhealthy(svc, healthy_task, states)

    started = time.monotonic()
    spawn_background(follow, thread_name=f"follow-{svc_key.rsplit('/', 1)[-1][:12]}")


def end_unhealthy(svc, task, states):
    group = next(s["group"] for s in states if s and s["state"] == "unhealthy")
    reason = next(s["description"] for s in states if s and s["state"] == "unhealthy")
    event(svc, f"(task {task_arn_id(task)}) (port {svc['loadBalancers'][0].get('containerPort')}) is unhealthy in "
               f"(target-group {group}) due to (reason {reason}).")
    if ecs._mark_task_stopped(task["taskArn"], task, f"Task failed ELB health checks in (target-group {group})", "ServiceSchedulerInitiated"):
        ecs._record_service_task_failure(task)
        ecs._cleanup_task_resources(task, ecs._get_docker())


old_reconcile = None
RECONCILING = defaultdict(threading.RLock)


def reconcile_service_tasks(cluster_name, svc_key):
    # Two at once would each see room for the same tasks.
    with RECONCILING[svc_key]:
        old_reconcile(cluster_name, svc_key)


old_failure = ecs._record_service_task_failure


def record_service_task_failure(task, digest_resolution_failed=False):
    cluster, key, svc = service_of(task)
    if not svc:
        return
    breaker = (svc.get("deploymentConfiguration") or {}).get("deploymentCircuitBreaker") or {}
    if breaker.get("enable"):
        old_failure(task, digest_resolution_failed)
        return
    with resource_lock("ecs-service", key):
        deployment = ecs._deployment_for_task(svc, task)
        if deployment is None:
            return
        # A task of an older deployment leaves room for one of the newest.
        if deployment is ecs._primary_deployment(svc) and deployment.get("rolloutState") == "IN_PROGRESS":
            deployment["failedTasks"] = int(deployment.get("failedTasks", 0)) + 1
            deployment["updatedAt"] = ecs._iso()
        pause = min(0.2 * 2 ** int(deployment.get("failedTasks", 0)), 5.0)
    account, region = get_account_id(), get_region()

    def again():
        time.sleep(pause)
        with request_scope(account, region):
            ecs._reconcile_service_tasks(cluster, key)

    spawn_background(again, thread_name="start-again")


# ---- tasks -----------------------------------------------------------------------------------------------------------

TOKENS, TOKENS_LOCK = {}, threading.Lock()
old_run_task = ecs._run_task


def run_task(data):
    if data.get("_deploymentId"):
        data["startedBy"] = data["_deploymentId"]
        return old_run_task(data)
    if refusal := unknown_cluster(data) or unknown_definition(data) or too_long(data.get("count", 1), 10, "count"):
        return refusal
    token = data.get("clientToken")
    with TOKENS_LOCK:
        if token in TOKENS:
            before, answer = TOKENS[token]
            if before != data:
                return refuse("ConflictException", "The same client token was used with other parameters.")
            tasks = [ecs._sanitize(ecs._tasks[task["taskArn"]]) for task in json.loads(answer[2])["tasks"]]
            return json_response({"tasks": tasks, "failures": []})
        asked = json.loads(json.dumps(data))
        answer = old_run_task(data)
        if token and answer[0] == 200:
            TOKENS[token] = asked, answer
        return answer


old_cleanup = ecs._cleanup_task_resources


def cleanup_task_resources(task, docker_client, extra_container=None):
    address = ecs._task_ip(task)
    if address and task.get("group", "").startswith("service:"):
        ask("gone", address)
    if docker_client is None:
        # It ended by itself, and nobody removes its containers here.
        for container in list(task.get("_docker_ids") or []):
            print_rest(ecs._get_docker(), container)
    old_cleanup(task, docker_client, extra_container)


# Of each container that writes to CloudWatch Logs: where to, and how many of its lines are there.
PRINTED = {}


def forward_awslogs(container, config, account_id, region):
    """As ministack's own, but the lines are counted: a follower may miss the last ones of a container that ends."""
    with request_scope(account_id, region):
        if not ecs._ensure_awslogs_stream(config):
            return
        printed = PRINTED[container.id] = {"lock": threading.Lock(), "config": config, "of": (account_id, region), "lines": 0, "all": False}
        try:
            for chunk in container.logs(stream=True, follow=True, stdout=True, stderr=True):
                for line in chunk.decode("utf-8", errors="replace").splitlines():
                    with printed["lock"]:
                        if printed["all"]:
                            return
                        ecs._emit_awslogs_event(config, line)
                        printed["lines"] += 1
        except Exception as problem:
            ecs.logger.debug("logs of %s: %s", container.id, problem)


def print_rest(docker_client, which):
    """Brings the lines of a container that has ended to CloudWatch Logs that are not there yet, as the log driver does."""
    try:
        container = docker_client.containers.get(which) if isinstance(which, str) else which
        printed = PRINTED.get(container.id)
        if printed is None:
            return
        with printed["lock"], request_scope(*printed["of"]):
            lines = container.logs(stdout=True, stderr=True).decode("utf-8", errors="replace").splitlines()
            for line in lines[printed["lines"]:]:
                ecs._emit_awslogs_event(printed["config"], line)
            printed["all"] = True
    except Exception as problem:
        ecs.logger.debug("last logs of %s: %s", which, problem)


old_remove = ecs._remove_docker_container


def remove_docker_container(docker_client, container_or_id):
    if docker_client and container_or_id is not None:
        try:
            container = docker_client.containers.get(container_or_id) if isinstance(container_or_id, str) else container_or_id
            container.stop(timeout=5)
            print_rest(docker_client, container)
        except Exception as problem:
            ecs.logger.debug("end of %s: %s", container_or_id, problem)
    old_remove(docker_client, container_or_id)


old_stopped = ecs._mark_task_stopped


def mark_task_stopped(task_arn, task, reason, stop_code, exit_code=None):
    if stop_code == "EssentialContainerExited":
        reason = "Essential container in task exited"
    elif reason in ("Deployment completed", "Task definition updated", "Service scaling down", "Deployment capacity limit", "Service deleted"):
        stop_code = "ServiceSchedulerInitiated"
        reason = f"Scaling activity initiated by (deployment {task.get('_deployment_id')})"
    return old_stopped(task_arn, task, reason, stop_code, exit_code)


old_run_kwargs = ecs._build_run_kwargs


def build_run_kwargs(*args, **kwargs):
    made = old_run_kwargs(*args, **kwargs)
    made.pop("extra_hosts", None)
    made.pop("network_mode", None)
    return made | {"network": NETWORK, "cgroup_parent": CGROUP}


old_run_container = ecs._run_docker_container


def run_docker_container(docker_client, cdef, run_kwargs, **how):
    return old_run_container(docker_client, cdef, run_kwargs, **(how | {"refresh_image": True, "allow_cached": False}))


old_attach = ecs._attach_started_container


def attach_started_container(task, container, index, metadata_token, ecs_network):
    attached = old_attach(task, container, index, metadata_token, ecs_network)
    if attached:
        ask("container", {"id": container.id, "labels": {
            "container_name": task["containers"][index]["name"], "task": task_arn_id(task), "group": task.get("group", ""),
            "revision": task["taskDefinitionArn"].rsplit("/", 1)[-1]}})
    digests = container.image.attrs.get("RepoDigests") or []
    if attached and digests:
        task["containers"][index]["imageDigest"] = digests[0].rpartition("@")[2]
    return attached


# ---- calls -----------------------------------------------------------------------------------------------------------

def refuse(code, message):
    return error_response_json(code, message, 400)


def too_long(number, limit, what):
    return refuse("InvalidParameterException", f"{what} cannot be greater than {limit}.") if number > limit else None


def unknown_cluster(data):
    name = ecs._resolve_cluster_name(data.get("cluster", "default"))
    if name is None or name not in ecs._clusters:
        return refuse("ClusterNotFoundException", "Cluster not found.")
    return None


def unknown_definition(data):
    key = ecs._resolve_td_key(data["taskDefinition"]) if data.get("taskDefinition") else None
    if data.get("taskDefinition") and key not in ecs._task_defs:
        return refuse("ClientException", "TaskDefinition not found.")
    if key and ecs._task_defs[key]["status"] != "ACTIVE":
        return refuse("ClientException", "TaskDefinition is inactive")
    return None


def no_tags(data):
    return refuse("InvalidParameterException", "Tags can not be empty.") if data.get("tags") == [] else None


def found_service(data):
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    name = ecs._resolve_service_ref(data.get("service") or data.get("serviceName") or "")
    return ecs._services.get(f"{cluster}/{name[0]}") if name else None


def keep(svc, data):
    for name in KEPT_ON_SERVICE:
        if name in data:
            svc[name] = data[name]
    for name in KEPT_ON_DEPLOYMENT:
        if name in data:
            svc["deployments"][0][name] = data[name]


old_create = ecs._create_service


def create_service(data):
    if refusal := unknown_cluster(data) or unknown_definition(data) or no_tags(data):
        return refusal
    there = found_service(data)
    token = data.get("clientToken")
    if there and there["status"] == "ACTIVE" and token and there.get("_token") == token:
        return json_response({"service": ecs._sanitize(there)})
    if there and there["status"] == "DRAINING":
        return refuse("InvalidParameterException", "Unable to Start a service that is still Draining.")
    if there and there["status"] == "ACTIVE":
        return refuse("InvalidParameterException", "Creation of service was not idempotent.")
    status, headers, body = old_create(data)
    made = found_service(data)
    if status == 200 and made:
        keep(made, data)
        made["_token"] = token
        return json_response({"service": ecs._sanitize(made)})
    return status, headers, body


old_update = ecs._update_service


def update_service(data):
    if refusal := unknown_cluster(data) or unknown_definition(data):
        return refusal
    there = found_service(data)
    if there and there["status"] != "ACTIVE":
        return refuse("ServiceNotActiveException", "Service was not ACTIVE.")
    if there:
        primary = ecs._primary_deployment(there) or {}
        if any(name in data and data[name] != (there.get(name) or primary.get(name)) for name in STARTS_DEPLOYMENT):
            data["forceNewDeployment"] = True
        inherited = {name: primary[name] for name in KEPT_ON_DEPLOYMENT if name in primary}
    status, headers, body = old_update(data)
    if status == 200:
        keep(there, inherited | data)
        return json_response({"service": ecs._sanitize(there)})
    return status, headers, body


old_delete = ecs._delete_service


def delete_service(data):
    svc = found_service(data)
    if unknown_cluster(data) or not svc or svc["status"] != "ACTIVE" or not data.get("force") and svc.get("desiredCount", 0) > 0:
        return old_delete(data)
    svc["status"], svc["desiredCount"] = "DRAINING", 0
    account, region = get_account_id(), get_region()

    def drain():
        with request_scope(account, region):
            old_delete(data | {"force": True})

    answer = json_response({"service": ecs._sanitize(svc)})
    spawn_background(drain, thread_name="delete-service")
    return answer


old_register = ecs._register_task_definition


def register_task_definition(data):
    return no_tags(data) or unfit_for_fargate(data) or old_register(data)


# CPU units -> the first, last and step of MiB of memory.
FARGATE = {256: (512, 2048, 512), 512: (1024, 4096, 1024), 1024: (2048, 8192, 1024), 2048: (4096, 16384, 1024),
           4096: (8192, 30720, 1024), 8192: (16384, 61440, 4096), 16384: (32768, 122880, 8192)}


def unfit_for_fargate(data):
    if "FARGATE" not in data.get("requiresCompatibilities", []):
        return None
    if data.get("networkMode") != "awsvpc":
        return refuse("ClientException", "Fargate only supports network mode 'awsvpc'.")
    for name in ("cpu", "memory"):
        if not str(data.get(name, "")).isdigit():
            return refuse("ClientException", f"Fargate requires that '{name}' be defined at the task level.")
    cpu, memory = int(data["cpu"]), int(data["memory"])
    first, last, step = FARGATE.get(cpu, (1, 0, 1))
    if (cpu, memory) == (256, 1536) or not first <= memory <= last or memory % step:
        return refuse("ClientException", f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. "
                                         "See the Amazon ECS documentation for the valid values.")
    if not data.get("executionRoleArn"):
        for container in data.get("containerDefinitions", []):
            what = ("ECR images" if ".dkr.ecr." in container.get("image", "")
                    else "log driver awslogs" if (container.get("logConfiguration") or {}).get("logDriver") == "awslogs" else None)
            if what:
                return refuse("ClientException", f"Fargate requires task definition to have execution role ARN to support {what}.")
    return None


old_describe_services, old_describe_tasks, old_list_services = ecs._describe_services, ecs._describe_tasks, ecs._list_services


def describe_services(data):
    return too_long(len(data.get("services", [])), 10, "Services") or old_describe_services(data)


def describe_tasks(data):
    return unknown_cluster(data) or too_long(len(data.get("tasks", [])), 100, "Tasks") or old_describe_tasks(data)


def list_services(data):
    if refusal := unknown_cluster(data) or too_long(data.get("maxResults") or 1, 100, "maxResults"):
        return refusal
    arns = json.loads(old_list_services(data)[2])["serviceArns"]
    start, size = int(data.get("nextToken") or 0), data.get("maxResults") or 10
    more = {"nextToken": str(start + size)} if start + size < len(arns) else {}
    return json_response({"serviceArns": arns[start:start + size], **more})


def rewrite(function, *lines):
    """Lines of a function of ministack, old and new; fails when it is not as in the version that was read."""
    import inspect
    source = inspect.getsource(function)
    for line, new in lines:
        assert source.count(line) == 1, f"{function.__name__} is not what it was"
        source = source.replace(line, new)
    exec(compile(source, f"<{function.__name__}>", "exec"), vars(ecs))


def main():
    # Each look is a call to podman.
    rewrite(ecs._watch_task_lifecycle, ("time.sleep(0.1)", "time.sleep(0.35)"))
    # Old tasks outlive a deployment that failed, and the breaker may be about to make theirs the newest again. Room is made first
    # by old tasks that answer nobody: those of a deployment that another one has taken the place of.
    rewrite(ecs._reconcile_service_tasks,
            ('primary.get("rolloutState") != "IN_PROGRESS"\n    if drain_stale',
             'primary.get("rolloutState") not in ("IN_PROGRESS", "FAILED")\n    if drain_stale'),
            ('if t.get("lastStatus") == "RUNNING")\n        capacity', "if carries_traffic(t))\n        capacity"),
            ("max(0, running - min_running), len(stale_tasks))",
             "idle_first(stale_tasks) + max(0, running - min_running), len(stale_tasks))"))
    ecs.idle_first = idle_first
    ecs.carries_traffic = carries_traffic
    global old_reconcile
    old_reconcile, ecs._reconcile_service_tasks = ecs._reconcile_service_tasks, reconcile_service_tasks
    ecs._deployment_needs_first_task = lambda *_: False
    ecs._make_deployment = make_deployment
    ecs._complete_service_deployment = complete_service_deployment
    ecs._schedule_service_deployment_completion = schedule_completion
    ecs._record_service_task_failure = record_service_task_failure
    ecs._sync_service_targets = sync_service_targets
    ecs._cleanup_task_resources = cleanup_task_resources
    ecs._mark_task_stopped = mark_task_stopped
    ecs._forward_awslogs = forward_awslogs
    ecs._remove_docker_container = remove_docker_container
    ecs._build_run_kwargs = build_run_kwargs
    ecs._run_docker_container = run_docker_container
    ecs._attach_started_container = attach_started_container
    # The scheduler's own starts and the callers' go through the same function; the map is the callers' way in.
    ecs._run_task = ecs._ACTION_MAP["RunTask"] = run_task
    ecs._ACTION_MAP |= {
        "CreateService": create_service, "UpdateService": update_service, "DeleteService": delete_service,
        "RegisterTaskDefinition": register_task_definition, "DescribeServices": describe_services,
        "DescribeTasks": describe_tasks, "ListServices": list_services,
    }
    from ministack.app import main as serve
    serve()


if __name__ == "__main__":
    main()
