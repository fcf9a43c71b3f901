# The image of Dataflow's workers, for --sdk_container_image, and of the flex template that starts a build without an
# environment of its own: docs/dataflow.md.
# Beam's version here has to be the one in requirements.lock, which is the one that submits the job.
ARG BEAM_VERSION=2.77.0
FROM apache/beam_python3.12_sdk:${BEAM_VERSION}

WORKDIR /opt/broetchen
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY pyproject.toml setup.py README.md LICENSE ./
COPY beam_pipelines ./beam_pipelines
COPY broetchen ./broetchen
COPY launch ./launch
COPY mix_configs ./mix_configs
COPY samples ./samples
COPY transforms ./transforms
RUN pip install --no-cache-dir --no-deps .

# What a flex template is started by, and what it runs
COPY --from=gcr.io/dataflow-templates-base/python312-template-launcher-base:latest \
    /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/broetchen/beam_pipelines/serve/flex_template.py

# Beam's own entry point, which the service starts
ENTRYPOINT ["/opt/apache/beam/boot"]
