"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  root.classList.add("scripted");

  // Colours of figures are names of custom properties; only an element that uses one knows its value in this theme.
  const probe = document.createElement("span");
  document.body.append(probe);
  const colourOf = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const coloured = (value) => {
    if (typeof value === "string") return value.startsWith("--") ? colourOf(value) : value;
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
    }
    return value;
  };

  const drawn = new Set();
  const draw = (plot) => {
    const spec = coloured(JSON.parse(plot.querySelector("script").textContent));
    const layout = { ...spec.layout, autosize: true };
    if (coarse) layout.dragmode = false;
    const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    if (coarse) options.displayModeBar = false;
    if (!drawn.has(plot)) plot.append(document.createElement("div"));
    drawn.add(plot);
    return Plotly.react(plot.lastElementChild, spec.data, layout, options);
  };
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const plot of all(".plot")) seen.observe(plot);
  const redraw = () => [...drawn].forEach(draw);

  const toggle = document.querySelector(".theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const shown = () => {
    toggle.setAttribute("aria-pressed", String(isDark()));
    redraw();
  };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    shown();
  });
  dark.addEventListener("change", shown);
  shown();

  for (const list of all('[role="tablist"]')) {
    const tabs = all('[role="tab"]', list);
    const panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));
    const select = (chosen) => {
      tabs.forEach((tab, number) => {
        tab.setAttribute("aria-selected", String(number === chosen));
        tab.tabIndex = number === chosen ? 0 : -1;
        panels[number].hidden = number !== chosen;
      });
    };
    panels.forEach((panel, number) => {
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tabs[number].id);
      panel.tabIndex = 0;
    });
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    list.addEventListener("click", (event) => {
      const number = tabs.indexOf(event.target.closest('[role="tab"]'));
      if (number >= 0) select(number);
    });
    list.addEventListener("keydown", (event) => {
      const now = tabs.indexOf(document.activeElement);
      const ends = { Home: 0, End: tabs.length - 1 };
      const next = event.key in steps ? (now + steps[event.key] + tabs.length) % tabs.length : ends[event.key];
      if (now < 0 || next === undefined) return;
      event.preventDefault();
      select(next);
      tabs[next].focus();
    });
    list.hidden = false;
    select(0);
  }

  const key = (row, column, isNumber) => {
    const cell = row.cells[column];
    if (!isNumber) return cell.textContent.trim();
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const compare = (a, b, sign, isNumber) => {
    if (!isNumber) return sign * a.localeCompare(b, "en", { numeric: true });
    // What is missing comes last, whichever way is up.
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  };
  for (const table of all("table")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      const isNumber = head.classList.contains("number");
      button.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
        const sign = order === "ascending" ? 1 : -1;
        const pairs = [...table.tBodies[0].rows].map((row) => [key(row, column, isNumber), row]);
        pairs.sort(([a], [b]) => compare(a, b, sign, isNumber));
        table.tBodies[0].append(...pairs.map(([, row]) => row));
      });
    });
  }

  const links = new Map(all(".bar a").map((link) => [link.hash.slice(1), link]));
  const mark = () => {
    const heights = all("main > section").map((section) => [section.id, section.getBoundingClientRect().top]);
    const above = heights.filter(([, top]) => top < innerHeight / 3);
    const current = (above.length ? above.at(-1) : heights[0])[0];
    for (const [name, link] of links) {
      if (name === current && !link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        link.closest("nav").scrollLeft = link.offsetLeft - link.closest("nav").offsetLeft - 24;
      } else if (name !== current) link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  addEventListener("beforeprint", () => {
    const theme = root.dataset.theme;
    const hidden = all(".panel[hidden]");
    root.dataset.theme = "light";
    for (const panel of hidden) panel.hidden = false;
    all(".plot").forEach(draw);
    const back = () => {
      if (theme) root.dataset.theme = theme;
      else delete root.dataset.theme;
      for (const panel of hidden) panel.hidden = true;
      redraw();
    };
    addEventListener("afterprint", back, { once: true });
  });
})();
