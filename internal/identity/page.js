"use strict";
// Asks the browser for a passkey and sends its answer with the page's form.
(() => {
  const form = document.querySelector("form[data-ask]");
  const start = document.getElementById("start");
  const said = document.getElementById("said");
  const create = form.dataset.way === "create";
  const able = window.PublicKeyCredential && PublicKeyCredential.parseRequestOptionsFromJSON && PublicKeyCredential.parseCreationOptionsFromJSON;
  if (!able) {
    said.textContent = "This browser can't use passkeys. Use a newer one, or another way.";
    start.disabled = true;
    return;
  }
  start.addEventListener("click", async () => {
    start.disabled = true;
    said.textContent = "Follow what your browser or device asks.";
    try {
      const ask = JSON.parse(form.dataset.ask);
      const key = create
        ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(ask) })
        : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(ask) });
      form.elements.answer.value = JSON.stringify(key.toJSON());
      form.submit();
    } catch (e) {
      said.textContent = {
        InvalidStateError: "This device has a passkey of yours already.",
        SecurityError: "Passkeys work at this site's own https address alone, and this is not it.",
        NotSupportedError: "This device can't make such a passkey. Use another device, or another way.",
        NotAllowedError: "That did not work, or it was cancelled. Try again, or use another way.",
      }[e.name] || "The browser failed (" + e.name + "). Try again, or use another way.";
      start.disabled = false;
      start.focus();
    }
  });
})();
