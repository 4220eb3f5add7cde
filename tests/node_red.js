// Runs a flow of Node-RED as far as its function, switch and debug nodes go. stdin: {flow, from, messages}; stdout: what
// reached each debug node, and what function nodes keep in their context, both by the node's name.
const { flow, from, messages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const byId = Object.fromEntries(flow.map((node) => [node.id, node]));
const stores = {}, reached = {};

const contextOf = (node) => {
    const kept = (stores[node.name] = stores[node.name] || {});
    return { get: (key) => kept[key], set: (key, value) => { kept[key] = value; } };
};
const property = (msg, path) => path.split(".").reduce((value, key) => value?.[key], msg);

// As Node-RED does: the code is the body of a function; null sends nothing, an array one message an output.
const outputs = (node, msg) => {
    if (node.type === "function") {
        const said = new Function("msg", "context", "node", node.func)(msg, contextOf(node), { name: node.name });
        return Array.isArray(said) ? said : [said];
    }
    if (node.type === "switch") {
        const value = property(msg, node.property);
        return node.rules.map((rule) => (rule.t === "eq" && value === rule.v ? msg : null));
    }
    throw new Error(`a ${node.type} node can't be run`);
};
const take = (node, msg) => {
    if (node.type === "debug") {
        (reached[node.name] = reached[node.name] || []).push(msg);
        return;
    }
    outputs(node, msg).forEach((said, i) => {
        if (said) node.wires[i].forEach((id) => take(byId[id], structuredClone(said)));
    });
};
const start = flow.find((node) => node.name === from);
for (const msg of messages) start.wires[0].forEach((id) => take(byId[id], structuredClone(msg)));
console.log(JSON.stringify({ reached, stores }));
