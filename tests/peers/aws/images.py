"""Container images without a builder: one layer with the responder, a configuration that says what it does."""
import base64
import gzip
import hashlib
import http.client
import io
import json
import tarfile

AUTHORIZATION = "Basic " + base64.b64encode(b"AWS:test").decode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Images:
    def __init__(self, port, program, ecr):
        """`port`: a registry on 127.0.0.1; `ecr(operation, parameters)` asks the emulator."""
        self.port, self.ecr = port, ecr
        self.repositories = set()
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            entry = tarfile.TarInfo("responder")
            entry.mode, entry.size = 0o755, program.stat().st_size
            with open(program, "rb") as file:
                tar.addfile(entry, file)
        self.unpacked = digest(plain.getvalue())
        self.layer = gzip.compress(plain.getvalue(), 1, mtime=0)

    def push(self, repository, tag, behaviour, revision):
        """Returns the digest of the manifest."""
        if repository not in self.repositories:
            try:
                self.ecr("CreateRepository", {"repositoryName": repository})
            except Exception as error:
                if type(error).__name__ != "RepositoryAlreadyExistsException":
                    raise
            self.blob(repository, self.layer)
            self.repositories.add(repository)
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Entrypoint": ["/responder"], "Env": [f"BEHAVIOUR={behaviour}", f"REVISION={revision}"],
                       "ExposedPorts": {"8080/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": [self.unpacked]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "delegate tests"}],
        }).encode()
        self.blob(repository, config)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(self.layer), "digest": digest(self.layer)}],
        }).encode()
        self.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": kind})
        return digest(manifest)

    def blob(self, repository, data):
        where = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        where = where[where.index("/v2/"):]
        self.ask("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest(data)}", data, {"Content-Type": "application/octet-stream"})

    def ask(self, method, path, body, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": AUTHORIZATION, **(headers or {})})
            reply = connection.getresponse()
            said = reply.read()
            if reply.status >= 300:
                raise RuntimeError(f"{method} {path}: {reply.status} {said[:300]!r}")
            return reply.getheader("Location")
        finally:
            connection.close()
