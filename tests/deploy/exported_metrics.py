"""Every series that the dashboard and the rules may use, with its labels; Prometheus adds those of the target."""

TARGET_LABELS = {"namespace", "job", "instance", "pod"}

HISTOGRAMS = (
    "florence2_request_seconds",
    "florence2_queue_seconds",
    "florence2_encode_seconds",
    "florence2_decode_seconds",
    "florence2_time_to_first_token_seconds",
)

ENGINE = {"model", "engine"}
INFO = {"version", "checkpoint", "revision", "layout", "device", "dtype", "slots"}

# From the stub, on the metrics page of each served model. Streams that are refused are counted without an engine.
OURS = {
    "florence2_info": ENGINE | INFO,
    "florence2_requests_total": ENGINE | {"task", "outcome"},
    "florence2_objective_requests_total": ENGINE | {"task_class", "verdict"},
    "florence2_objective_seconds": ENGINE | {"task_class"},
    **{f"{name}_{part}": ENGINE | {"task"} for name in HISTOGRAMS for part in ("sum", "count")},
    **{f"{name}_bucket": ENGINE | {"task", "le"} for name in HISTOGRAMS},
    "florence2_steps_total": ENGINE | {"task", "outcome"},
    "florence2_waiting_requests": ENGINE,
    "florence2_waiting_image_bytes": ENGINE,
    "florence2_oldest_waiting_seconds": ENGINE,
    "florence2_queue_limit_requests": ENGINE,
    "florence2_queue_limit_bytes": ENGINE,
    "florence2_refusals_total": ENGINE | {"reason"},
    "florence2_refusal_seconds_sum": ENGINE,
    "florence2_refusal_seconds_count": ENGINE,
    "florence2_refusal_seconds_bucket": ENGINE | {"le"},
    "florence2_prompt_tokens_total": ENGINE | {"task"},
    "florence2_generated_tokens_total": ENGINE | {"task"},
    "florence2_decode_steps_total": ENGINE,
    "florence2_decode_rows_total": ENGINE,
    "florence2_slots": ENGINE,
    "florence2_slots_in_use": ENGINE,
    "florence2_engine_waiting_requests": ENGINE,
    "florence2_engine_running_requests": ENGINE,
    "florence2_image_embedding_hits_total": ENGINE,
    "florence2_image_embedding_misses_total": ENGINE,
    "florence2_image_embedding_cache_bytes": ENGINE,
    "florence2_engine_up": ENGINE,
    "florence2_stub_up": ENGINE,
    "florence2_engine_restarts_total": ENGINE,
    "florence2_engine_retried_requests_total": ENGINE,
    "florence2_engine_memory_bytes": ENGINE | {"kind"},
    "florence2_adapters": ENGINE,
    "florence2_adapter_bytes": ENGINE | {"adapter"},
    "florence2_adapter_requests_total": ENGINE | {"adapter", "outcome"},
}

# For gateways, which read it from the servers: Prometheus drops it, because its labels change all the time.
DROPPED = {"florence2_lora_requests_info": ENGINE | {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}}

# Of series that exist without some of their labels: those that all of them have.
LABELS_OF_ALL = {
    "florence2_refusals_total": {"model", "reason"},
    "florence2_requests_total": {"model", "task", "outcome"},
    "florence2_objective_requests_total": {"model", "task_class", "verdict"},
    # Prometheus drops labels without a value; the demo checkpoint has no revision.
    "florence2_info": (ENGINE | INFO) - {"revision"},
}

# Triton's; the last four only on machines with GPUs.
TRITONS = {
    "nv_inference_request_failure": {"model", "version", "reason"},
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_gpu_memory_used_bytes": {"gpu_uuid"},
    "nv_gpu_memory_total_bytes": {"gpu_uuid"},
    "nv_gpu_power_usage": {"gpu_uuid"},
}

# Prometheus'.
PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}

EXPORTED: dict[str, set[str]] = {**OURS, **TRITONS, **PROMETHEUS}
