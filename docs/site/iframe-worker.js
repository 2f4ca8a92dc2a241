// A browser starts no worker from a file, and the search is one: in a site without a server it runs in a frame
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { hidden: true }));
      this.inside = frame.contentWindow;
      this.send = (target, data) => target.dispatchEvent(new MessageEvent("message", { data }));
      addEventListener("message", (event) => event.source === this.inside && this.send(this, event.data));
      const script = `postMessage = (data) => parent.postMessage(data, "*")`;
      this.inside.document.write(`<body><script>${script}</script><script src="${url}"></script>`);
      this.inside.document.close();
      this.loaded = new Promise((resolve) => (this.inside.onload = resolve));
    }
    postMessage(data) {
      this.loaded.then(() => this.send(this.inside, data));
    }
  };
