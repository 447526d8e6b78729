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
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# Stores
DB_SYSTEM_NAME: Final = "db.system.name"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_COLLECTION_NAME: Final = "db.collection.name"

# GenAI
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
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
REPLICA: Final = "parley.replica"
REQUEST_ID: Final = "parley.request.id"
CACHE_VERDICT: Final = "parley.cache.verdict"
CACHE_REASON: Final = "parley.cache.reason"
CACHE_SIMILARITY: Final = "parley.cache.similarity"
CONTEXT_STRATEGY: Final = "parley.context.strategy"
CONTEXT_MESSAGES_INCLUDED: Final = "parley.context.messages_included"
CONTEXT_MESSAGES_DROPPED: Final = "parley.context.messages_dropped"
QUEUE_SECONDS: Final = "parley.queue.seconds"
PREFILL_SECONDS: Final = "parley.prefill.seconds"
DECODE_SECONDS: Final = "parley.decode.seconds"
ENGINE: Final = "parley.engine"
