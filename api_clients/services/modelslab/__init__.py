"""ModelsLab ControlNet and ModelsLab Enterprise ControlNet."""
