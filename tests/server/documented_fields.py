"""Every documented field of the five endpoints, and the input of a node through which a graph reaches it.

Typed in from docs/services/modelslab.md 2, docs/services/scenario.md 2, 3 and docs/services/qolaba.md 2. `Request`,
`Control` and so on are node names without `ControlStack`; `.` alone is the endpoint's own node.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTROL, DETECT = "Canny.strength", "Canny.detect"
PICTURE, INITIAL = "Canny.image", "Request.init_image"

_MODELSLAB_BOTH = {
    "key": ".profile",
    "model_id": ".model_id",
    "controlnet_model": ".controlnet_model",
    "controlnet_type": ".controlnet_type",
    "auto_hint": DETECT,
    "guess_mode": ".guess_mode",
    "prompt": "Request.prompt",
    "negative_prompt": "Request.negative_prompt",
    "init_image": INITIAL,
    "control_image": PICTURE,
    "mask_image": "Request.mask",
    "width": "Request.width",
    "height": "Request.height",
    "samples": "Request.batch_size",
    "scheduler": "Scheduler.scheduler",
    "tomesd": ".tomesd",
    "use_karras_sigmas": ".use_karras_sigmas",
    "algorithm_type": "Scheduler.algorithm_type",
    "vae": "Request.vae",
    "lora_strength": "Lora.strength",
    "lora_model": "Lora.remote_id",
    "num_inference_steps": "Request.steps",
    "safety_checker": ".safety_checker",
    "enhance_prompt": ".enhance_prompt",
    "controlnet_conditioning_scale": ".controlnet_conditioning_scale",
    "strength": "Request.denoise",
    "guidance_scale": "Request.guidance_scale",
    "seed": "Request.seed",
    "webhook": ".webhook",
    "track_id": ".track_id",
    "upscale": "Request.upscale",
    "clip_skip": "Request.clip_skip",
    "base64": ".base64",
    "temp": ".temp",
}
_QOLABA_BOTH = {
    "app_id": ".app_id",
    "image": PICTURE,
    "prompt": "Request.prompt",
    "guidance_scale": "Request.guidance_scale",
    "batch": "Request.batch_size",
    "negative_prompt": "Request.negative_prompt",
    "celery": ".celery",
    "inference_type": ".inference_type",
}

DOCUMENTED_FIELDS: Mapping[str, Mapping[str, str]] = {
    "ControlStackModelsLab": {
        **_MODELSLAB_BOTH,
        "ip_adapter_id": ".ip_adapter_id",
        "ip_adapter_scale": "Reference.scale",
        "ip_adapter_image": "Reference.image",
    },
    "ControlStackModelsLabEnterprise": {**_MODELSLAB_BOTH, "multi_lingual": ".multi_lingual"},
    "ControlStackScenario": {
        "originalAssets": ".originalAssets",
        "dryRun": ".estimate_only",
        "projectId": ".projectId",
        "ipAdapterImageIds": "Reference.image",
        "controlEnd": "Canny.end_percent",
        "modality": CONTROL,
        "seed": "Request.seed",
        "modelId": ".modelId",
        "ipAdapterType": "Reference.kind",
        "ipAdapterImage": ".ip_adapter_fields",
        "scheduler": "Scheduler.scheduler",
        "disableModalityDetection": DETECT,
        "ipAdapterImages": "Reference.image",
        "imageParentId": ".imageParentId",
        "baseModelId": ".baseModelId",
        "controlStart": "Canny.start_percent",
        "height": "Request.height",
        "imageHide": ".imageHide",
        "controlImageId": ".control_field",
        "image": PICTURE,
        "imageId": ".control_field",
        "ipAdapterImageId": ".ip_adapter_fields",
        "ipAdapterScale": ".ip_adapter_fields",
        "modelEpoch": ".modelEpoch",
        "hideResults": ".hideResults",
        "ipAdapterScales": "Reference.scale",
        "negativePrompt": "Request.negative_prompt",
        "intermediateImages": ".intermediateImages",
        "concepts": "Lora.remote_id",
        "controlImage": ".control_field",
        "guidance": "Request.guidance_scale",
        "numInferenceSteps": "Request.steps",
        "numSamples": "Request.batch_size",
        "width": "Request.width",
        "negativePromptStrength": ".negativePromptStrength",
        "prompt": "Request.prompt",
    },
    "ControlStackQolabaControlNet": {
        **_QOLABA_BOTH,
        "strength": CONTROL,
        "num_inference_steps": "Request.steps",
    },
    "ControlStackQolabaImageToImage": {
        **_QOLABA_BOTH,
        "image": INITIAL,
        "strength": "Request.denoise",
        "height": "Request.height",
        "width": "Request.width",
        "num_inference_steps": "Request.steps",  # not on its page, but acts for some apps (docs/services/qolaba.md 2.3)
    },
}
