// The pack's own page in ComfyUI's settings.

import { app } from "../../../scripts/app.js";
import { keysPanel } from "./keys.mjs";

app.registerExtension({
  name: "ControlStack",
  settings: [
    {
      id: "ControlStack.Keys",
      category: ["ControlStack", "Services", "Keys"],
      name: "Keys of the services",
      tooltip: "Kept on the machine that runs ComfyUI, in a file that its server hands to nobody.",
      type: keysPanel, // draws itself and never calls the setter: ComfyUI stores nothing of it
      defaultValue: null,
    },
  ],
});
