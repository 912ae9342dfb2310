// Gives pi the tools of its agent: they are listed and run by the proxy that pi's model is behind, too.
// Plain JavaScript without imports, so that it fits every release of pi.

const base = process.env.PALMETTE_TOOLS;
const headers = { authorization: `Bearer ${process.env.PALMETTE_TOKEN}`, "content-type": "application/json" };

export default async function (pi) {
  const stop = new AbortController();
  let version = -1;
  let names = [];

  async function refresh() {
    const response = await fetch(`${base}?after=${version}`, { headers, signal: stop.signal });
    if (!response.ok) throw new Error(`the proxy answers ${response.status}`);
    const told = await response.json();
    if (told.version === version) return;
    const gone = names;
    version = told.version;
    names = told.tools.map((tool) => tool.name);
    for (const tool of told.tools) register(tool);
    if (gone.some((name) => !names.includes(name))) {
      pi.setActiveTools(pi.getActiveTools().filter((name) => names.includes(name) || !gone.includes(name)));
    }
  }

  function register(tool) {
    pi.registerTool({
      name: tool.name,
      label: tool.name,
      description: tool.description,
      parameters: tool.parameters,
      async execute(id, params, signal) {
        const response = await fetch(`${base}/${encodeURIComponent(tool.name)}`, {
          method: "POST",
          headers,
          signal,
          body: JSON.stringify({ id, arguments: JSON.stringify(params) }),
        });
        if (!response.ok) throw new Error(`the proxy answers ${response.status}`);
        const { text, failed } = await response.json();
        if (failed) throw new Error(text);
        return { content: [{ type: "text", text }], details: {} };
      },
    });
  }

  await refresh();
  pi.on("session_start", async () => {
    (async () => {
      while (!stop.signal.aborted) {
        try {
          await refresh();
        } catch {
          return; // the proxy is gone, or pi is about to be
        }
      }
    })();
  });
  pi.on("session_shutdown", async () => stop.abort());
}
