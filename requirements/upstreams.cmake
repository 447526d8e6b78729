# Read inside llama.cpp's own project: of it the server needs only the libraries that infer.
set(LLAMA_BUILD_COMMON OFF)
