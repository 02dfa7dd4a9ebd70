# syntax=docker/dockerfile:1
ARG BASE=base
FROM ${BASE:-minimal}
ARG GREETING="hello world"
ENV TOOL_HOME=/opt/tool
RUN <<EOT
set -e
# kept
echo "a <<b" \
  && echo c
EOT
RUN <<-'PY' python3 - > /srv/py
	import os
	print("$HOME", 1<<4)
	PY
RUN <<SCRIPT
#!/usr/bin/env python3
print('own')
SCRIPT
COPY <<app.conf <<"raw.conf" ${TOOL_HOME}/
greeting = ${GREETING}
price = \$5
app.conf
greeting = ${GREETING}
raw.conf
RUN echo "no <<document here" && cat <<A <<B
one
A
two \
B
RUN cat 3<<N /dev/fd/3
three
N
CMD ["cat", "a b", "c\"d"]
