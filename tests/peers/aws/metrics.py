"""What a load balancer tells CloudWatch, from haproxy's counters: AWS/ApplicationELB by target group and by load balancer. Each
second instead of each minute; as in the cloud nothing is said about a second without requests, and a count that is zero is
not said."""
import threading
import time
from collections import defaultdict

COUNTS = {"hrsp_2xx": "HTTPCode_Target_2XX_Count", "hrsp_3xx": "HTTPCode_Target_3XX_Count",
          "hrsp_4xx": "HTTPCode_Target_4XX_Count", "hrsp_5xx": "HTTPCode_Target_5XX_Count"}


class Metrics:
    def __init__(self, balancer, put):
        """`put(parameters)` is PutMetricData."""
        self.balancer, self.put = balancer, put
        self.before = {}
        threading.Thread(target=self.go_on, daemon=True).start()

    def go_on(self):
        while True:
            self.balancer.awake.wait()
            time.sleep(1)
            try:
                self.publish()
            except Exception as error:
                print(f"metrics: {error}", flush=True)

    def publish(self):
        counted = defaultdict(lambda: defaultdict(float))
        with self.balancer.lock:
            group_of = {t.server: t.group for t in self.balancer.targets.values()}
        now = time.time()
        for row in self.balancer.haproxy.stat(4):
            server = f"{row['pxname']}/{row['svname']}"
            if server not in group_of:
                continue
            counts = {name: int(row[column] or 0) for column, name in COUNTS.items()}
            counts["RequestCount"] = sum(counts.values()) + int(row["hrsp_other"] or 0)
            before, self.before[server] = self.before.get(server, {}), counts
            new = {name: value - before.get(name, 0) for name, value in counts.items()}
            # Of the last requests, and a mean: haproxy keeps no more.
            new["seconds"] = new["RequestCount"] * int(row["rtime"] or 0) / 1000
            for name, value in new.items():
                counted[group_of[server]][name] += value
        data = []
        for group, values in counted.items():
            if not values["RequestCount"]:
                continue
            values["TargetResponseTime"] = values.pop("seconds") / values["RequestCount"]
            here = [{"Name": "TargetGroup", "Value": group.rpartition(":")[2]}]
            for arn in self.balancer.balancers_of(group):
                there = [{"Name": "LoadBalancer", "Value": arn.rpartition("loadbalancer/")[2]}]
                for dimensions in (here + there, there):
                    data += [{"MetricName": name, "Dimensions": dimensions, "Timestamp": now, "Value": value, "StorageResolution": 1,
                              "Unit": "Seconds" if name == "TargetResponseTime" else "Count"}
                             for name, value in values.items() if value or name == "TargetResponseTime"]
        for start in range(0, len(data), 500):
            self.put({"Namespace": "AWS/ApplicationELB", "MetricData": data[start:start + 500]})
