# A server for one reward model. Not one file of it comes from the model's repository: no remote code, safetensors alone.
#
#   docker build --tag rewardlab .
#   docker run --gpus all --publish 127.0.0.1:8000:8000 --volume /models/my-rm:/model:ro \
#     --env REWARDLAB_API_KEY --read-only --tmpfs /tmp rewardlab /model --dtype bfloat16
#
# Without a GPU build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu, which saves gigabytes.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://pypi.org/simple
WORKDIR /src
RUN python -m venv /opt/rewardlab
COPY constraints-torch.txt constraints-serve.txt ./
# Every file by its locked hash; torch, whose builds differ by machine, by its version.
RUN /opt/rewardlab/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
  --requirement constraints-serve.txt
RUN /opt/rewardlab/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" --requirement constraints-torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/rewardlab/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
  && /opt/rewardlab/bin/pip check

FROM python:3.12-slim
COPY --from=build /opt/rewardlab /opt/rewardlab
# Nobody's processes, and nothing of theirs is written but what the mounts allow.
RUN useradd --system --uid 10001 --no-create-home rewardlab
USER rewardlab
ENV PATH=/opt/rewardlab/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/tmp/huggingface
EXPOSE 8000
# Exit status alone: 503 while the model is loading, then 200.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# SIGTERM (docker stop) lets accepted requests finish; give it longer than --drain: docker stop --time 40.
STOPSIGNAL SIGTERM
ENTRYPOINT ["rewardlab", "serve", "--host", "0.0.0.0", "--port", "8000"]
