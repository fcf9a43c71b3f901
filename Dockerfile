# The image of Dataflow's workers, for --sdk_container_image, and of the flex template that starts a build without an
# environment of its own: docs/dataflow.md, which also says how the two images below are given by digest.
# Beam's version here has to be the one in requirements.lock, which is the one that submits the job.
ARG BEAM_IMAGE=apache/beam_python3.12_sdk:2.77.0
ARG LAUNCHER_IMAGE=gcr.io/dataflow-templates-base/python312-template-launcher-base:latest
FROM ${LAUNCHER_IMAGE} AS launcher
FROM ${BEAM_IMAGE}

WORKDIR /opt/broetchen
COPY requirements.lock ./
# Without isolation nothing is fetched to build a package with: what Beam's image has builds it.
RUN pip install --no-cache-dir --require-hashes --no-build-isolation -r requirements.lock

COPY pyproject.toml setup.py README.md LICENSE ./
COPY beam_pipelines ./beam_pipelines
COPY broetchen ./broetchen
COPY launch ./launch
COPY mix_configs ./mix_configs
COPY samples ./samples
COPY transforms ./transforms
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# The program that starts a flex template, and the one that it runs
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/broetchen/beam_pipelines/serve/flex_template.py

# Beam's own entry point, which the service starts
ENTRYPOINT ["/opt/apache/beam/boot"]
