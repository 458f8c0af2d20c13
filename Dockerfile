# The server over a run: docker build -t idiolect . && docker run -v ./shop:/data -p 8000:8000 idiolect serve /data/run --host 0.0.0.0
FROM python:3.11-slim AS build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
# The CPU build of torch: the default one brings gigabytes of CUDA libraries. `make lock` pins all else.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY assets assets
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH
RUN useradd --create-home --uid 1000 idiolect
USER 1000
WORKDIR /home/idiolect
EXPOSE 8000
ENTRYPOINT ["idiolect"]
CMD ["--help"]
