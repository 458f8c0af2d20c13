# The server over a run: docker build -t idiolect . && docker run -v ./shop:/data -p 8000:8000 idiolect serve /data/run --host 0.0.0.0
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY assets assets
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY --from=build /wheels /wheels
# The CPU build of torch: the default one brings gigabytes of CUDA libraries.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "$(ls /wheels/*.whl)[serve]" \
    && useradd --create-home idiolect
USER idiolect
WORKDIR /home/idiolect
EXPOSE 8000
ENTRYPOINT ["idiolect"]
CMD ["--help"]
