ARG VERSION=1
FROM base AS one
RUN echo one > /one
FROM base AS unused
RUN false
FROM base AS two
ARG VERSION
COPY --from=one /one /two
RUN --mount=type=secret,id=token,required=true,env=TOKEN echo $VERSION
FROM two AS test
RUN exit 1
FROM two
COPY --from=busybox:1.36 /bin/busybox /bin/tool
COPY --from=0 /one /again
COPY --from=2 /two /
