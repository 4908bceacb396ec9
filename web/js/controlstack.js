// The pack's own page in ComfyUI's settings.

import { app } from "../../../scripts/app.js";
import { keysPanel } from "./keys.mjs";

app.registerExtension({
  name: "ControlStack",
  settings: [
    {
      id: "ControlStack.Keys",
      category: ["ControlStack", "Services", "Keys"],
      name: "API keys of the services",
      tooltip: "Keys are stored in a file on the machine that runs ComfyUI. They never leave it except to the service.",
      type: keysPanel, // draws itself and never calls the setter, so ComfyUI stores nothing
      defaultValue: null,
    },
  ],
});
