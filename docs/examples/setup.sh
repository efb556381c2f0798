#!/bin/bash
export LOCAL_PROJECT_DIR="$(cd "$(dirname "$0")" && pwd)"
export LOCAL_DATA_DIR="$LOCAL_PROJECT_DIR/data"
export WANDB_API_KEY="$(cat ~/.wandb_key)"
export PATH="$PATH:/opt/tools"
cat > ~/.tao_mounts.json <<END
{"Mounts": [{"source": "$LOCAL_PROJECT_DIR", "destination": "/workspace/tao-experiments"},
            {"source": "$LOCAL_DATA_DIR", "destination": "/data"}],
 "DockerOptions": {"user": "$(id -u):$(id -g)"}}
END
