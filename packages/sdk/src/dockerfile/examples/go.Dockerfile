FROM --platform=$BUILDPLATFORM golang:1.23 AS builder
ARG TARGETOS TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=${TARGETOS:-linux} GOARCH=$TARGETARCH go build -ldflags "-X main.version=${VERSION}" -o /out/server ./cmd/server

FROM debian:12-slim
LABEL org.opencontainers.image.source="https://example.com/server" \
      org.opencontainers.image.licenses="MIT"
COPY --from=builder --chmod=755 /out/server /usr/local/bin/server
ENTRYPOINT ["/usr/local/bin/server"]
