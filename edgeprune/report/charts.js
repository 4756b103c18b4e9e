for (const figure of document.querySelectorAll("figure.chart")) {
  const plot = figure.querySelector(".plot");
  vegaEmbed(plot, JSON.parse(figure.querySelector("script").textContent),
    {mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false})
    .catch(problem => { plot.textContent = "not drawn: " + problem.message; console.error(problem); });
}
