"""Names of span attributes, one table for all services.

The GenAI and RPC names are OpenTelemetry's semantic conventions; they are kept
here because those for GenAI still move between releases of the SDK. Names of
our own begin with ``parley.``. No attribute holds prompt or answer text.
"""

from typing import Final

# RPC
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"

# Stores
DB_SYSTEM_NAME: Final = "db.system.name"
DB_OPERATION_NAME: Final = "db.operation.name"

# GenAI
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

GEN_AI_OPERATION_CHAT: Final = "chat"

# Ours
CODE: Final = "parley.code"
TENANT: Final = "parley.tenant"
CHAT_ID: Final = "parley.chat.id"
RUN_ID: Final = "parley.run.id"
RUN_ATTEMPT: Final = "parley.run.attempt"
RUN_STATE: Final = "parley.run.state"
REQUEST_ID: Final = "parley.request.id"
CACHE_VERDICT: Final = "parley.cache.verdict"
CACHE_REASON: Final = "parley.cache.reason"
CACHE_SIMILARITY: Final = "parley.cache.similarity"
QUEUE_SECONDS: Final = "parley.queue.seconds"
PREFILL_SECONDS: Final = "parley.prefill.seconds"
DECODE_SECONDS: Final = "parley.decode.seconds"
ENGINE: Final = "parley.engine"
