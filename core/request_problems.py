"""The kinds of problems that a request can have on any target. Targets add kinds of their own beside their rules."""

from __future__ import annotations

from .problems import ProblemKind

# Numbers
UNSUPPORTED_NUMBER = ProblemKind("unsupported_number", "{target} does not support {field}. Set it to {suggestion}.")
FIXED_NUMBER = ProblemKind(
    "fixed_number", "{field} is {value}, but {target} does not let you change it. Set it to {suggestion}."
)
OUT_OF_RANGE = ProblemKind(
    "out_of_range", "{field} is {value}, but {target} accepts {minimum} to {maximum}. Set it to {suggestion}."
)
NOT_A_MULTIPLE = ProblemKind(
    "not_a_multiple",
    "{field} is {value}, but {target} accepts only multiples of {multiple} from {minimum} to {maximum}. "
    "Set it to {suggestion}.",
)
UNSUPPORTED_SIZE = ProblemKind(
    "unsupported_size",
    "The {field} is {value}, but {target} generates only {choices}. Set width to {width} and height to {height}.",
)
TOO_MANY = ProblemKind(
    "too_many", "There are {value} {field}, but {target} accepts at most {suggestion}. Remove {excess}."
)

# Texts
MISSING_PROMPT = ProblemKind("missing_prompt", "{field} is empty, but {target} needs one. Describe the image in it.")
UNSUPPORTED_NEGATIVE_PROMPT = ProblemKind(
    "unsupported_negative_prompt", "{target} does not support negative prompts. Clear {field}."
)
UNSUPPORTED_VAE = ProblemKind(
    "unsupported_vae", "{field} is '{value}', but {target} does not let you choose a VAE. Clear {field}."
)

# Schedulers
FIXED_SCHEDULER = ProblemKind(
    "fixed_scheduler", "{target} does not let you choose a scheduler. Set {field} to {suggestion}."
)
UNSUPPORTED_SCHEDULER = ProblemKind(
    "unsupported_scheduler", "{target} does not support {value}. Set {field} to default or to one of {choices}."
)
TOO_MANY_STEPS = ProblemKind(
    "too_many_steps",
    "{field} is {value}, but {scheduler} takes at most {suggestion} steps. Set it to {suggestion}.",
)
UNSUPPORTED_KARRAS = ProblemKind("unsupported_karras", "{target} does not support {field}. Turn it off.")
KARRAS_WITHOUT_SCHEDULER = ProblemKind(
    "karras_without_scheduler",
    "{field} is on, but no scheduler is chosen. Turn {field} off, or choose one of these schedulers: {choices}.",
)
SCHEDULER_WITHOUT_KARRAS = ProblemKind(
    "scheduler_without_karras",
    "{field} is on, but {scheduler} does not support it on {target}. "
    "Turn it off, or choose one of these schedulers: {choices}.",
)
UNSUPPORTED_ALGORITHM_TYPES = ProblemKind(
    "unsupported_algorithm_types", "{target} does not let you choose an algorithm type. Set {field} to {suggestion}."
)
ALGORITHM_TYPE_WITHOUT_SCHEDULER = ProblemKind(
    "algorithm_type_without_scheduler",
    "{field} is {value}, but no scheduler is chosen. "
    "Set {field} to default, or choose one of these schedulers: {choices}.",
)
SCHEDULER_WITHOUT_ALGORITHM_TYPES = ProblemKind(
    "scheduler_without_algorithm_types",
    "{field} is {value}, but {scheduler} has no algorithm types. Set it to {suggestion}.",
)
UNSUPPORTED_ALGORITHM_TYPE = ProblemKind(
    "unsupported_algorithm_type",
    "{field} is {value}, but {scheduler} supports only {choices} on {target}. Set it to default or to one of these.",
)
SCHEDULER_NEEDS_INIT_IMAGE = ProblemKind(
    "scheduler_needs_init_image",
    "{field} is {value}, which starts from an image. Connect init_image, or choose another scheduler.",
)
SCHEDULER_CANNOT_INPAINT = ProblemKind(
    "scheduler_cannot_inpaint",
    "{field} is {value}, which cannot inpaint. Disconnect mask, or choose another scheduler.",
)

# Initial image and mask
UNSUPPORTED_INIT_IMAGE = ProblemKind(
    "unsupported_init_image", "{target} cannot start from an image. Disconnect {field}."
)
UNSUPPORTED_MASK = ProblemKind("unsupported_mask", "{target} does not support inpainting. Disconnect {field}.")
MISSING_MASK = ProblemKind(
    "missing_mask",
    "{target} is an inpainting model, which redraws part of an image. "
    "Connect init_image and {field}, or load another model.",
)
MASK_WITHOUT_INIT_IMAGE = ProblemKind(
    "mask_without_init_image",
    "{field} is connected without an init_image. Connect the image to inpaint, or disconnect {field}.",
)
EMPTY_MASK = ProblemKind(
    "empty_mask",
    "{field} is empty, so nothing would be redrawn. Paint a mask in the mask editor of Load Image, or disconnect it.",
)
DENOISE_WITHOUT_INIT_IMAGE = ProblemKind(
    "denoise_without_init_image",
    "{field} is {value}, but no init_image is connected. Connect one, or set {field} to {suggestion}.",
)
UNSUPPORTED_DENOISE = ProblemKind(
    "unsupported_denoise", "{field} is {value}, but {target} cannot start from an image. Set {field} to {suggestion}."
)
DENOISE_TOO_LOW = ProblemKind(
    "denoise_too_low", "{field} is {value}, so none of the {steps} steps would run. Set it to {suggestion} or more."
)

# Controls
MISSING_CONTROL = ProblemKind(
    "missing_control", "{target} needs a control whose strength is not 0. Connect a control node to the request."
)
UNSUPPORTED_CONTROLS = ProblemKind("unsupported_controls", "{target} does not accept controls. Disconnect {field}.")
UNSUPPORTED_MODALITY = ProblemKind(
    "unsupported_modality", "{target} does not support {field}. It supports {choices}. {remedy}"
)
NO_MODALITY = ProblemKind("no_modality", "{target} does not support {field}. {remedy}")
UNSUPPORTED_CONTROL_WINDOW = ProblemKind(
    "unsupported_control_window",
    "{field} is {value}, but {target} applies a control in every step. Set start_percent to 0 and end_percent to 1.",
)
UNSUPPORTED_DETECT = ProblemKind(
    "unsupported_detect", "{field} is {value}, but {target} does not make control maps. Set detect to local or none."
)
UNSUPPORTED_CONTROL_MASK = ProblemKind(
    "unsupported_control_mask",
    "{field} is connected, but {target} cannot limit a control to an area. Disconnect it.",
)
EMPTY_CONTROL_MASK = ProblemKind(
    "empty_control_mask",
    "{field} is empty, so the control would have no effect. "
    "Paint a mask in the mask editor of Load Image, or disconnect it.",
)
EMPTY_INPAINT_MASK = ProblemKind(
    "empty_inpaint_mask",
    "{field} is empty, so nothing would be filled in. "
    "Paint a mask in the mask editor of Load Image, or remove the control.",
)

# References and LoRAs
UNSUPPORTED_REFERENCES = ProblemKind(
    "unsupported_references", "{target} does not accept reference images. Disconnect {field}."
)
UNSUPPORTED_REFERENCE_KIND = ProblemKind(
    "unsupported_reference_kind",
    "{field} is {value}, but {target} supports only {choices}. Change the kind, or disconnect the reference.",
)
UNSUPPORTED_REFERENCE_WINDOW = ProblemKind(
    "unsupported_reference_window",
    "{field} is {value}, but {target} applies a reference in every step. Set start_percent to 0 and end_percent to 1.",
)
UNSUPPORTED_REFERENCE_MASK = ProblemKind(
    "unsupported_reference_mask",
    "{field} is connected, but {target} cannot limit a reference to an area. Disconnect it.",
)
REFERENCE_MASK_COUNT = ProblemKind(
    "reference_mask_count",
    "{field} is a batch of {value}, but the reference has {images} images. "
    "Connect one mask for all of them, or one for each.",
)
SINGLE_REFERENCE_MASK = ProblemKind(
    "single_reference_mask", "{field} is a batch of {value}, but the reference has one image. Connect one mask."
)
UNSUPPORTED_LORAS = ProblemKind("unsupported_loras", "{target} does not support LoRAs. Disconnect {field}.")

# Windows of controls and references
INVALID_WINDOW = ProblemKind(
    "invalid_window",
    "{field} is {value}: start_percent must be below end_percent, and both must be from 0 to 1. "
    "Use 0 and 1 for the whole run.",
)
EMPTY_WINDOW = ProblemKind(
    "empty_window",
    "{field} is {value}, but none of the {calls} model evaluations of the run falls inside it. Widen the window.",
)

# Upscaling
UNSUPPORTED_UPSCALE = ProblemKind(
    "unsupported_upscale", "{target} cannot upscale. Turn {field} off, and enlarge the result with an upscale node."
)

# Tensors
IMAGE_SHAPE = ProblemKind(
    "image_shape",
    "{field} has the shape [{value}]. An image must have the shape [batch, height, width, channels] with 1, 3 or 4 "
    "channels, and no dimension may be 0. Check the node that it comes from.",
)
MASK_SHAPE = ProblemKind(
    "mask_shape",
    "{field} has the shape [{value}]. A mask must have the shape [batch, height, width], and no dimension may be 0. "
    "Check the node that it comes from.",
)
NOT_FINITE = ProblemKind(
    "not_finite",
    "{field} contains NaN or infinite values. Check the node that it comes from. A VAE in fp16 often causes this.",
)
WRONG_BATCH = ProblemKind(
    "wrong_batch",
    "{field} is a batch of {value}, but batch_size is {batch_size}. "
    "Connect a single image, or set batch_size to {value}.",
)
