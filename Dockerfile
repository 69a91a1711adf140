# The agent and manager image: one static-ish binary on a slim base, non-root, no shell tools beyond the base's.
#   docker build -t delegate .        (any OCI builder: buildah bud -t delegate .)
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/* \
 && cargo build --locked --release --package delegate-cli && cp target/release/delegate /delegate

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1001 --gid 0 --create-home --home-dir /opt/harness-delegate delegate \
 && install -d -o 1001 -g 0 -m 0770 /var/lib/delegate
COPY --from=build /delegate /usr/local/bin/delegate
# ShellScript steps find bash and sh here. For Python or PowerShell steps derive an image with python3 or pwsh (SHELL-003).
USER 1001:0
ENV DELEGATE_DATA_DIR=/var/lib/delegate
VOLUME /var/lib/delegate
EXPOSE 3460 8840
ENTRYPOINT ["/usr/local/bin/delegate"]
CMD ["agent"]
