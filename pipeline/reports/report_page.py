"""The report as one HTML file: what it is about, the table, comparisons, and the parts on groups and searches."""

from collections.abc import Iterator

from pipeline.percent import percent
from pipeline.reports import page
from pipeline.reports.charts import ForecastRow, SeedsRow, forecast_chart, seeds_chart
from pipeline.reports.comparison_words import against_sections
from pipeline.reports.group_facts import GroupFacts
from pipeline.reports.group_part import group_part
from pipeline.reports.inline_svg import inline_svg
from pipeline.reports.report_facts import COMPARED, Pair, Report
from pipeline.reports.report_words import NODE_COLUMNS, TABLE_COLUMNS, node_row, table_lines, table_row
from pipeline.reports.search_part import search_part

GENERATOR = "seqpipe report"


def page_of(report: Report) -> str:
    """The whole page."""
    parts = list(_parts(report))
    links = [(anchor, words) for anchor, words, _ in parts]
    head = page.heading(1, f"Report on {report.title}") + page.text(f"Made on {report.created}.", muted=True)
    body = "".join(f"<section>{page.heading(2, words, anchor)}{inside}</section>" for anchor, words, inside in parts)
    return page.document(f"seqpipe: {report.title}", f"{head}{page.contents(links)}<main>{body}</main>", GENERATOR)


def is_ours(content: bytes) -> bool:
    """Whether a file is a page that this made."""
    return f'<meta name="generator" content="{GENERATOR}">'.encode() in content[:4096]


def _parts(report: Report) -> Iterator[tuple[str, str, str]]:
    """The anchor, the heading and the contents of each part."""
    if report.groups:
        yield "results", "Results", _results(report)
    if len(report.groups) > 1:
        yield "comparisons", "Comparisons", "".join(map(_pair, report.pairs)) + _not_compared(report)
    for group in report.groups:
        yield f"group-{group.letter}", group.title, group_part(group)
    for number, search in enumerate(report.searches, start=1):
        yield f"search-{number}", f"Search {search.name}: {search.search.model}", search_part(search, f"s{number}")
    if costs := _costs(report):
        yield "costs", "Memory and time", costs


def _results(report: Report) -> str:
    rows = [table_row(group) for group in report.groups]
    lines = "".join(page.text(line, muted=True) for line in table_lines(report.groups))
    seeds = [row for group in report.groups if (row := _seeds_row(group)) is not None]
    alt = "; ".join(
        f"{row.label}: mean {percent(row.mean)}, {percent(row.low)} to {percent(row.high)}" for row in seeds
    )
    chart = page.charts([inline_svg(seeds_chart(seeds), "seeds", f"Test accuracy. {alt}")]) if seeds else ""
    return page.table("Results", TABLE_COLUMNS, rows) + lines + chart


def _seeds_row(group: GroupFacts) -> SeedsRow | None:
    test, metrics = group.test, group.median.metrics
    if test is None or metrics is None:
        return None
    low, high = test.low, test.high
    if low is None or high is None:
        low, high = metrics.accuracy_low, metrics.accuracy_high
    return SeedsRow(
        label=f"{group.letter}: {group.first.run.model}",
        values=[one.metrics.accuracy for one in group.trainings if one.metrics is not None],
        mean=test.mean,
        low=low,
        high=high,
        published=group.published.published_accuracy if group.published else None,
    )


def _pair(pair: Pair) -> str:
    name = pair.second.letter
    if pair.comparison is None:
        return page.heading(3, f"{name} and A") + page.text(f"They cannot be compared: {pair.why_not}.")
    [against] = pair.comparison.against
    made = []
    for section in against_sections(name, against, pair.comparison.class_names):
        inside = page.table(section.heading, section.columns, section.rows) if section.columns else ""
        inside += "".join(map(page.text, section.lines))
        is_result = section.heading == f"{name} less A"
        words = section.heading[0].upper() + section.heading[1:]
        made.append((not is_result, page.heading(3, words) + inside if is_result else page.folded(words, inside)))
    return "".join(inside for _, inside in sorted(made, key=lambda one: one[0]))  # what it comes to first


def _not_compared(report: Report) -> str:
    left = report.groups[1 + COMPARED :]
    if not left:
        return ""
    names = ", ".join(group.letter for group in left)
    return page.text(f"Not compared here: {names}. seqpipe runs compare compares any two.")


def _costs(report: Report) -> str:
    memory, time = [], []
    for group in report.groups:
        trained, forecast = group.median.run.trained, group.forecast
        if trained is None:
            continue
        label = f"{group.letter}: {group.first.run.model}"
        memory.append(ForecastRow(label, forecast.peak_mb if forecast else None, trained.peak_memory_mb))
        time.append(ForecastRow(label, group.forecast_s, trained.trained_s))
    parts = []
    if memory:
        drawn = [("memory", forecast_chart(memory, "peak memory", "MB"), memory, "MB")]
        time, unit = _readable(time)
        drawn.append(("time", forecast_chart(time, "time", unit), time, unit))
        parts.append(page.charts(inline_svg(chart, name, _alt(rows, unit)) for name, chart, rows, unit in drawn))
        parts.append(
            page.text(
                "Measured: the median seed, as it was trained. Forecast: of the time, what that training said after "
                "its first steps, without early stopping; of memory, and of time where a training did not say, what "
                "seqpipe run --dry-run says of the same training on the machine that made this page.",
                muted=True,
            )
        )
    without = [group for group in report.groups if group.no_forecast]
    for group in without:
        what = "no forecast" if group.forecast_s is None else "no forecast of the memory"
        parts.append(page.text(f"{group.letter}: {what}: {group.no_forecast}."))
    untimed = [group.letter for group in report.groups if group.forecast and group.forecast_s is None]
    if untimed:
        parts.append(page.text(f"{', '.join(untimed)}: no forecast of the time, since this machine was too busy."))
    if report.nodes:
        parts.append(page.heading(3, "Who trained what"))
        parts.append(page.table("Who trained what", NODE_COLUMNS, [node_row(one) for one in report.nodes]))
    return "".join(parts)


def _alt(rows: list[ForecastRow], unit: str) -> str:
    def known(value: float | None) -> str:
        return "not known" if value is None else f"{value:.4g} {unit}"

    return "; ".join(f"{row.label}: forecast {known(row.forecast)}, measured {known(row.measured)}" for row in rows)


def _readable(rows: list[ForecastRow]) -> tuple[list[ForecastRow], str]:
    """Times in seconds, in the unit that suits the longest of them."""
    longest = max(value for row in rows for value in (row.forecast, row.measured) if value is not None)
    size, unit = (1.0, "s") if longest < 180 else (60.0, "min") if longest < 3 * 3600 else (3600.0, "h")

    def of(value: float | None) -> float | None:
        return None if value is None else value / size

    return [ForecastRow(row.label, of(row.forecast), of(row.measured)) for row in rows], unit
