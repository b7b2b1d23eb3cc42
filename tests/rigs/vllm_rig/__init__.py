"""A real `vllm serve` on a CPU, with a tiny model that says what a test scripts. See the modules' own heads."""
