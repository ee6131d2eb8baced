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
      said.textContent = e.name === "InvalidStateError"
        ? "This device has a passkey of yours already."
        : "That did not work, or it was cancelled. Try again, or use another way.";
      start.disabled = false;
      start.focus();
    }
  });
})();
