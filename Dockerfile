# The gateway with its page, as one small image that runs without root.
FROM node:22-bookworm-slim AS page
WORKDIR /src
COPY web-client/package.json web-client/package-lock.json web-client/.npmrc web-client/
RUN cd web-client && npm ci --no-audit --no-fund
COPY docs docs
COPY static static
COPY web-client web-client
RUN cd web-client && npm run build

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
COPY --from=page /src/web-client/dist web-client/dist
RUN cargo build --release --locked -p wzp-gateway && mkdir /state

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 wzp
COPY --from=build /src/target/release/wzp-gateway /usr/local/bin/wzp-gateway
COPY --from=build --chown=wzp:wzp /state /state
USER wzp
ENV WZP_STATE_DIR=/state
VOLUME /state
EXPOSE 8443/tcp 8444/tcp 8444/udp 4433/udp
# Reads the same environment as the gateway, so that it asks where HTTP really listens.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s CMD ["/usr/local/bin/wzp-gateway", "doctor"]
ENTRYPOINT ["/usr/local/bin/wzp-gateway"]
