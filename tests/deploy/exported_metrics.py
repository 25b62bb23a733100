"""Every series that dashboard and rules may use, with its own labels; Prometheus adds those of the target."""

TARGET_LABELS = {"namespace", "job", "instance", "pod"}

HISTOGRAMS = (
    "florence2_request_seconds",
    "florence2_queue_seconds",
    "florence2_encode_seconds",
    "florence2_decode_seconds",
    "florence2_time_to_first_token_seconds",
)

# From the stub, on the metrics page of the model "florence2".
OURS = {
    "florence2_requests_total": {"task", "outcome"},
    **{f"{name}_{part}": {"task"} for name in HISTOGRAMS for part in ("sum", "count")},
    **{f"{name}_bucket": {"task", "le"} for name in HISTOGRAMS},
    "florence2_prompt_tokens_total": {"task"},
    "florence2_generated_tokens_total": {"task"},
    "florence2_decode_steps_total": set(),
    "florence2_decode_rows_total": set(),
    "florence2_slots": set(),
    "florence2_slots_in_use": set(),
    "florence2_engine_waiting_requests": set(),
    "florence2_engine_running_requests": set(),
    "florence2_image_embedding_hits_total": set(),
    "florence2_image_embedding_misses_total": set(),
    "florence2_image_embedding_cache_bytes": set(),
    "florence2_engine_up": set(),
    "florence2_engine_restarts_total": set(),
    "florence2_engine_retried_requests_total": set(),
    "florence2_engine_memory_bytes": {"kind"},
}

# Triton's own, the last four on GPUs only.
TRITONS = {
    "nv_inference_request_success": {"model", "version"},
    "nv_inference_request_failure": {"model", "version", "reason"},
    "nv_inference_pending_request_count": {"model", "version"},
    "nv_inference_queue_duration_us": {"model", "version"},
    "nv_inference_request_duration_us": {"model", "version"},
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_gpu_memory_used_bytes": {"gpu_uuid"},
    "nv_gpu_memory_total_bytes": {"gpu_uuid"},
    "nv_gpu_power_usage": {"gpu_uuid"},
}

# Prometheus' own.
PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}

EXPORTED: dict[str, set[str]] = {**OURS, **TRITONS, **PROMETHEUS}
