# Claude Code at the llama.cpp server's default address; for vLLM, its address and the name it serves.
export ANTHROPIC_BASE_URL=http://localhost:8000 # without /v1
export ANTHROPIC_AUTH_TOKEN=none                # or the server's key
export ANTHROPIC_MODEL=gpt-oss-20b.gguf
export ANTHROPIC_DEFAULT_HAIKU_MODEL=$ANTHROPIC_MODEL ANTHROPIC_DEFAULT_SONNET_MODEL=$ANTHROPIC_MODEL
export ANTHROPIC_DEFAULT_OPUS_MODEL=$ANTHROPIC_MODEL
# No telemetry, no updates: nothing but the server is asked.
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1
claude "$@"
