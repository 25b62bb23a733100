"""The names of the series that rules and queries under docker/ may use."""

import re

# Triton's own, for every model and GPU.
TRITON = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_pending_request_count",
    "nv_inference_queue_duration_us",
    "nv_inference_request_duration_us",
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_power_usage",
}
OURS = {
    "florence2_requests_total",
    "florence2_request_seconds",
    "florence2_queue_seconds",
    "florence2_encode_seconds",
    "florence2_decode_seconds",
    "florence2_time_to_first_token_seconds",
    "florence2_prompt_tokens_total",
    "florence2_generated_tokens_total",
    "florence2_decode_steps_total",
    "florence2_decode_rows_total",
    "florence2_slots",
    "florence2_slots_in_use",
    "florence2_engine_waiting_requests",
    "florence2_engine_running_requests",
    "florence2_image_embedding_hits_total",
    "florence2_image_embedding_misses_total",
    "florence2_image_embedding_cache_bytes",
    "florence2_engine_up",
    "florence2_engine_restarts_total",
    "florence2_engine_retried_requests_total",
    "florence2_engine_memory_bytes",
}
EXPORTED = TRITON | OURS


def names(query: str) -> set[str]:
    """The series that a query asks for."""
    return set(re.findall(r"\b(?:nv|florence2)_[a-z0-9_]+", query))
