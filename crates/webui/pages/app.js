// The built-in pages: the list of runs, and one run as it happens. Whatever comes from the server
// is put on the page as text, never as HTML. All addresses are relative: any sub-path will do.

const API = "apis/v2beta1";
const ENDED = new Set(["SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"]);
const LOG_LIMIT = 2_000_000;
const NOT_ARCHIVED = JSON.stringify({ predicates: [{ operation: "NOT_EQUALS", key: "storage_state", string_value: "ARCHIVED" }] });

/** What the page that is shown has open: aborted when another is shown. */
let shown = new AbortController();

function el(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const dim = (text) => el("p", { className: "dim" }, text);
const state = (name) => el("span", { className: `state ${name}` }, name);
const time = (text) => (isSet(text) ? new Date(text).toLocaleString() : "");
const isSet = (text) => Boolean(text) && !text.startsWith("1970-01-01T00:00:00");
const shownValue = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function duration(start, end) {
  if (!isSet(start)) return "";
  const seconds = Math.max(0, (isSet(end) ? Date.parse(end) : Date.now()) - Date.parse(start)) / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return parts[0] ? `${parts[0]} h ${parts[1]} min` : `${parts[1]} min ${parts[2]} s`;
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { signal: shown.signal, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is `coracle up` running?");
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(body.message ?? `The server answered ${response.status} ${response.statusText}`);
  }
  return response;
}

const read = async (path) => (await ask(`${API}/${path}`)).json();

function problem(error, again) {
  const retry = again && el("button", { onclick: again }, "Try again");
  return el("div", { role: "alert" }, el("p", { className: "problem" }, error.message), retry);
}

/** Shows what `make` gives, and until then and if it fails, that. */
async function load(place, make) {
  place.replaceChildren(dim("Loading…"));
  try {
    place.replaceChildren(...[await make()].flat());
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(problem(error, () => load(place, make)));
  }
}

function table(heads, rows, properties = {}) {
  const head = heads && el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", {}, text))));
  return el("table", properties, head, el("tbody", {}, ...rows));
}

const row = (...cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell ?? "")));

function pairs(values) {
  const rows = Object.entries(values ?? {}).map(([name, value]) => row(name, el("code", {}, shownValue(value))));
  return rows.length ? table(null, rows) : null;
}

const section = (title, content) => (content ? [el("h2", {}, title), content] : []);

// Runs

async function runs(page, experiment) {
  const body = el("tbody");
  const more = el("div");
  const path = `runs?page_size=50&sort_by=${encodeURIComponent("created_at desc")}&filter=${encodeURIComponent(NOT_ARCHIVED)}`;
  const scope = experiment ? `&experiment_id=${encodeURIComponent(experiment)}` : "";
  const next = async (token) => {
    const list = await read(`${path}${scope}&page_token=${encodeURIComponent(token)}`);
    body.append(...(list.runs ?? []).map(runRow));
    const further = list.next_page_token;
    more.replaceChildren(...(further ? [el("button", { onclick: () => load(more, () => next(further).then(() => [...more.childNodes])) }, "More")] : []));
    return list;
  };
  await load(page, async () => {
    body.replaceChildren();
    const list = await next("");
    const title = el("h1", {}, experiment ? "Runs of an experiment" : "Runs");
    if (!list.runs) return [title, el("p", {}, "No runs yet. Make the first: ", el("code", {}, "coracle run pipeline.yaml"))];
    const heads = el("thead", {}, el("tr", {}, ...["Name", "State", "Made", "Took"].map((text) => el("th", {}, text))));
    return [title, el("table", { className: "wide" }, heads, body), more];
  });
}

function runRow(run) {
  const link = el("a", { href: `#/runs/details/${encodeURIComponent(run.run_id)}` }, run.display_name);
  return row(link, state(run.state), time(run.created_at), duration(run.created_at, run.finished_at));
}

// One run

function followRun(page, id) {
  const head = el("div", { ariaLive: "polite" });
  const tree = el("ul", { className: "tasks" });
  const panel = el("section", {}, dim("Choose a task to see its inputs, outputs and log."));
  const metrics = el("section");
  const tasks = new Map();
  let run = {};
  let chosen = null;
  let source = null;

  const choose = (task) => {
    chosen?.stop.abort();
    chosen?.button.removeAttribute("aria-current");
    tasks.get(task.task_id).button.setAttribute("aria-current", "true");
    chosen = { id: task.task_id, button: tasks.get(task.task_id).button, stop: new AbortController() };
    shown.signal.addEventListener("abort", chosen.stop.abort.bind(chosen.stop), { signal: chosen.stop.signal });
    chosen.refresh = showTask(panel, id, task.task_id, chosen.stop.signal);
  };

  const update = (changed) => {
    for (const task of changed) {
      const node = tasks.get(task.task_id) ?? newNode(task, choose);
      node.task = task;
      tasks.set(task.task_id, node);
      showNode(node);
    }
    for (const task of changed) {
      const { item } = tasks.get(task.task_id);
      const place = tasks.get(task.parent_task_id)?.children ?? tree;
      if (item.parentNode !== place) place.append(item);
    }
    if (chosen && changed.some((task) => task.task_id === chosen.id)) chosen.refresh();
  };

  const listen = () => {
    page.replaceChildren(dim("Loading…"));
    source = new EventSource(`${API}/runs/${encodeURIComponent(id)}:watch`);
    source.addEventListener("run", (event) => {
      const news = JSON.parse(event.data);
      if (!run.run_id) page.replaceChildren(head, el("div", { className: "split" }, el("section", {}, el("h2", {}, "Tasks"), tree), panel), metrics);
      run = news;
      showHead(head, run);
      update(news.run_details?.task_details ?? []);
      if (ENDED.has(run.state)) {
        source.close();
        load(metrics, () => runMetrics(id));
      }
    });
    source.addEventListener("failed", (event) => {
      source.close();
      page.prepend(problem(JSON.parse(event.data)));
    });
    source.onerror = async () => {
      if (run.run_id) return head.prepend(...(head.querySelector(".lost") ? [] : [el("p", { className: "problem lost" }, "The connection is lost: trying again…")]));
      source.close();
      const failure = await read(`runs/${encodeURIComponent(id)}`).then(() => new Error("The connection was lost."), (error) => error);
      if (failure.name !== "AbortError") page.replaceChildren(problem(failure, listen));
    };
  };

  const clock = setInterval(() => {
    for (const node of tasks.values()) if (!ENDED.has(node.task.state)) showNode(node);
  }, 1000);
  shown.signal.addEventListener("abort", () => {
    clearInterval(clock);
    source?.close();
  });
  listen();
}

function showHead(head, run) {
  const stop = el("button", { onclick: () => ask(`${API}/runs/${encodeURIComponent(run.run_id)}:terminate`, { method: "POST" }).catch((error) => head.append(problem(error))) }, "Stop");
  head.replaceChildren(
    el("h1", {}, run.display_name ?? run.run_id, " ", state(run.state)),
    el("p", { className: "dim" }, `made ${time(run.created_at)}`, isSet(run.finished_at) ? `, took ${duration(run.created_at, run.finished_at)}` : ""),
    ...(run.error ? [failure(run.error)] : []),
    ...(ENDED.has(run.state) ? [] : [stop]),
    ...section("Parameters", pairs(run.runtime_config?.parameters)),
  );
}

/** A failure of a run or task: its reason, its message, and what to do about it. */
function failure(error) {
  const info = error.details?.find((detail) => detail.reason) ?? error;
  const hint = info.metadata?.hint ?? info.hint;
  const reason = info.reason ? [el("strong", {}, info.reason), ": "] : [];
  return el("div", { className: "problem" }, ...reason, error.message, ...(hint ? [el("div", { className: "dim" }, `hint: ${hint}`)] : []));
}

function newNode(task, choose) {
  const button = el("button", { type: "button", onclick: () => choose(task) });
  const why = el("div");
  const children = el("ul", { className: "tasks" });
  return { button, why, children, item: el("li", {}, button, why, children) };
}

function showNode({ task, button, why }) {
  const took = el("span", { className: "dim" }, duration(task.start_time, task.end_time));
  button.replaceChildren(el("span", {}, task.display_name), took, state(task.state));
  why.replaceChildren(...(task.error ? [failure(task.error)] : []));
}

/** Shows a task beside the tree. Gives a function that shows it again, without its log. */
function showTask(panel, run, id, signal) {
  const facts = el("div");
  const log = el("div");
  let isLogOpen = false;
  panel.replaceChildren(facts, log);
  const refresh = async () => {
    const task = await read(`runs/${encodeURIComponent(run)}/tasks/${encodeURIComponent(id)}`);
    const made = await artifacts(task.outputs?.artifacts);
    if (signal.aborted) return facts.childNodes;
    if (task.type === "CONTAINER" && !isLogOpen) {
      isLogOpen = true;
      followLog(log, run, id, signal);
    }
    return taskFacts(task, made);
  };
  const show = async () => {
    try {
      facts.replaceChildren(...(await refresh()));
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) facts.replaceChildren(problem(error, show));
    }
  };
  facts.replaceChildren(dim("Loading…"));
  show();
  return show;
}

function taskFacts(task, made) {
  const events = (task.events ?? []).map((event) => row(time(event.time), event.reason, event.message));
  const attempts = (task.attempts ?? []).map((attempt) => row(`${attempt.number}`, state(attempt.state), attempt.pod_name, duration(attempt.start_time, attempt.end_time), attempt.error?.message));
  const names = Object.keys(task.inputs?.artifacts ?? {});
  return [
    el("h2", {}, task.display_name, " ", state(task.state)),
    el("p", { className: "dim" }, `${task.type} ${task.scope_path}`),
    ...(task.error ? [failure(task.error)] : []),
    ...section("Inputs", pairs(task.inputs?.parameters)),
    ...section("Input artifacts", names.length ? el("p", {}, names.join(", ")) : null),
    ...section("Outputs", pairs(task.outputs?.parameters)),
    ...made.flatMap(artifactView),
    ...(attempts.length > 1 ? section("Attempts", table(["", "State", "Pod", "Took", "Why"], attempts)) : []),
    ...(events.length ? section("Events", table(null, events)) : []),
  ];
}

async function artifacts(lists) {
  const ids = Object.values(lists ?? {}).flatMap((list) => list.artifact_ids ?? []);
  return Promise.all(ids.map((id) => read(`artifacts/${encodeURIComponent(id)}`)));
}

async function runMetrics(id) {
  const list = await read(`artifacts?run_id=${encodeURIComponent(id)}`);
  const isMetric = (artifact) => artifact.type.endsWith("Metrics") && artifact.metadata;
  return (list.artifacts ?? []).filter(isMetric).flatMap(artifactView);
}

function artifactView(artifact) {
  const metadata = { ...artifact.metadata };
  const matrix = metadata.confusionMatrix?.struct ?? metadata.confusionMatrix;
  const isMetrics = artifact.type.endsWith("Metrics");
  if (matrix?.rows) delete metadata.confusionMatrix;
  return [
    el("h2", {}, artifact.name, " ", el("span", { className: "dim" }, artifact.type)),
    ...(isMetrics ? [] : [el("p", {}, el("code", {}, artifact.uri))]),
    ...(matrix?.rows ? [confusionMatrix(matrix)] : []),
    ...[pairs(metadata)].filter(Boolean),
  ];
}

/** Rows are what was true, columns what was predicted. */
function confusionMatrix({ annotationSpecs = [], rows }) {
  const labels = annotationSpecs.map((spec) => spec.displayName ?? "");
  const lines = rows.map((line, index) => {
    const cells = (line.row ?? line).map((count) => el("td", { className: "number" }, `${count}`));
    return el("tr", {}, el("th", {}, labels[index] ?? ""), ...cells);
  });
  return table(["true \\ predicted", ...labels], lines, { className: "matrix" });
}

async function followLog(place, run, id, signal) {
  const text = el("pre", { tabIndex: 0, ariaLabel: "log" });
  place.replaceChildren(el("h2", {}, "Log"), text);
  let length = 0;
  try {
    const path = `apis/v1alpha1/runs/${encodeURIComponent(run)}/nodes/${encodeURIComponent(id)}/log?follow=true`;
    const response = await ask(path, { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const isAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
      text.append(part.value);
      length += part.value.length;
      while (length > LOG_LIMIT && text.childNodes.length > 1) {
        length -= text.firstChild.length;
        text.firstChild.remove();
      }
      if (isAtEnd) text.scrollTop = text.scrollHeight;
    }
    if (length === 0) text.replaceWith(dim("The task wrote nothing."));
  } catch (error) {
    if (!signal.aborted) place.append(dim(error.message));
    if (length === 0) text.remove();
  }
}

// Which page

function route() {
  shown.abort();
  shown = new AbortController();
  const page = document.getElementById("page");
  const [, kind, , id] = location.hash.split("/").map(decodeURIComponent);
  document.title = id ? `Run ${id.slice(0, 8)} · Coracle` : "Coracle";
  if (kind === "runs" && id) return followRun(page, id);
  if (kind === "experiments" && id) return runs(page, id);
  if (kind === "pipelines") return page.replaceChildren(el("h1", {}, "Pipelines"), el("p", {}, "Pipelines have no page yet. The API ", el("a", { href: `${API}/pipelines` }, "lists them"), "; to run one: ", el("code", {}, "coracle run pipeline.yaml")));
  return runs(page);
}

addEventListener("hashchange", route);
route();
