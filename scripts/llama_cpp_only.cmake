# Read by CMake as the top project begins. llama-cpp-python's build sets this in the cache, always on; a variable goes
# before the cache. What Python loads (libllama and libggml) needs nothing of llama.cpp's own programs' library.
set(LLAMA_BUILD_COMMON OFF)
