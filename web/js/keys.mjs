// Shows which keys are set, with a form to store a key. The server never returns a key, and this page keeps none.

import { api } from "../../../scripts/api.js";

const ROUTE = "/controlstack/credentials";

/** The element that ComfyUI shows in its settings. */
export function keysPanel() {
  const panel = element("div", { className: "controlstack-keys" });
  panel.style.cssText = "display:grid;grid-template-columns:auto auto auto auto;gap:6px 16px;align-items:center";
  refresh(panel);
  return panel;
}

async function refresh(panel) {
  const answer = await ask();
  if (answer.error) {
    panel.replaceChildren(text(answer.error, "grid-column:1/-1"));
    return;
  }
  panel.replaceChildren(...answer.services.flatMap((service) => rows(service, panel)));
}

function rows(service, panel) {
  return service.profiles.flatMap((profile) => {
    const state = profile.set ? `set (${profile.from})` : profile.problem || "not set";
    const actions = element("span");
    if (profile.from === "environment") {
      // It takes precedence over a stored key of the same profile, so only another profile makes sense.
      actions.append(button("Add...", () => openForm(service, "", panel)));
    } else {
      actions.append(button(profile.set ? "Replace..." : "Set...", () => openForm(service, profile.profile, panel)));
    }
    if (profile.from === "file") {
      actions.append(button("Remove", () => remove(service, profile.profile, panel)));
    }
    const cells = [text(service.title), text(profile.profile), text(state), actions];
    for (const cell of cells) cell.dataset.profile = `${service.service}.${profile.profile}`;
    return cells;
  });
}

async function remove(service, profile, panel) {
  await ask({ service: service.service, profile });
  refresh(panel);
}

function openForm(service, profileName, panel) {
  const dialog = element("dialog", { className: "controlstack-key-form" });
  dialog.style.cssText = "margin:auto;padding:16px;color:var(--fg-color);background:var(--comfy-menu-bg)";
  const form = element("form", { method: "dialog", autocomplete: "off" });
  form.style.cssText = "display:grid;gap:8px;min-width:22rem";
  const profile = input("text", profileName, "profile");
  const fields = service.fields.map((field) => [field, input("password", "", field.name)]);
  const problem = text("", "color:var(--error-text);max-width:30rem");
  const close = () => {
    for (const [, box] of fields) box.value = "";
    dialog.close();
    dialog.remove();
  };
  const store = async () => {
    const values = Object.fromEntries(fields.map(([field, box]) => [field.name, box.value]));
    const answer = await ask({ service: service.service, profile: profile.value, values });
    if (answer.error) {
      problem.textContent = answer.error;
      return;
    }
    close();
    refresh(panel);
  };
  form.append(
    text(`Key for ${service.title}`, "font-weight:bold"),
    labeled("profile (the name by which nodes select this key)", profile),
    ...fields.map(([field, box]) => labeled(field.name + (field.optional ? " (optional)" : ""), box)),
    problem,
    button("Store", store),
    button("Cancel", close),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    store();
  });
  dialog.addEventListener("cancel", close);
  // Keys pressed here are not shortcuts of the editor.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
}

/** The answer to a GET, or to a POST of `body`; `{error}` if the server cannot be reached. */
async function ask(body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  try {
    const answer = await api.fetchApi(ROUTE, body ? post : {});
    return await answer.json();
  } catch (error) {
    return { error: `ComfyUI did not answer (${error.message}). Check that it is running, then open this page again.` };
  }
}

function element(kind, properties) {
  return Object.assign(document.createElement(kind), properties);
}

function text(content, style = "") {
  const span = element("span", { textContent: content });
  span.style.cssText = style;
  return span;
}

function button(label, onclick) {
  const made = element("button", { type: "button", textContent: label, onclick });
  made.style.cssText = "padding:4px 12px;cursor:pointer;border:none;border-radius:4px";
  return made;
}

function input(type, value, name) {
  return element("input", { type, value, name, autocomplete: type === "password" ? "new-password" : "off" });
}

function labeled(label, box) {
  const whole = element("label");
  whole.style.cssText = "display:grid;gap:2px";
  whole.append(text(label), box);
  return whole;
}
