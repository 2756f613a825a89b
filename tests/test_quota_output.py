"""What the commands print that know quotas, and what it means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from malformed import spoilt_answers

from production.errors import NoQuotaSet
from production.model import Space, Unit, Usage
from production.space import custom, du, eos, lfs, mmlsquota, mounts, table
from production.space.quotas import Count, Quota, as_space

KIB = 1024
GIB = 1024**3
DATA = Path(__file__).parent / "data"


def recorded(pattern: str) -> list[str]:
    return [path.read_text() for path in sorted(DATA.glob(pattern))]


def read(name: str) -> str:
    return (DATA / name).read_text()


def limits(quotas: list[Quota] | None, command: str = "quota") -> list[tuple[int, int, str]]:
    """Used and allowed of all that is limited, and who says so."""
    assert quotas is not None
    space = as_space(quotas, command, "here")
    return [(limit.used, limit.limit, limit.source) for limit in space.limits]


# --------------------------------------------------------------------------- which limit counts


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"), [(0, 0, 0), (7, 0, 7), (0, 9, 9), (7, 9, 7), (9, 7, 7)]
)
def test_the_lower_limit_counts_whether_soft_or_hard(soft: int, hard: int, allowed: int) -> None:
    assert Count(1, soft, hard).allowed == allowed


def test_above_the_soft_limit_it_is_full_as_long_as_the_grace_lasts_and_after_that() -> None:
    for grace in ("6 days", "expired", ""):
        (limit,) = as_space([Quota("work", "USR", Count(11, 10, 20, grace))], "quota", "").limits
        assert limit.fraction > 1
        assert limit.source == "quota work USR" + (
            f", above its soft limit, grace: {grace}" if grace else ""
        )


def test_bytes_and_files_are_both_limited_and_the_fuller_one_is_told() -> None:
    quota = Quota("work", "USR", Count(50, hard=100), Count(9, hard=10))
    space = as_space([quota], "quota", "here")
    assert space == Space(
        (
            Usage(50, 100, "quota work USR"),
            Usage(9, 10, "quota work USR, files", Unit.FILES),
        )
    )
    assert space.fullest.unit is Unit.FILES


# --------------------------------------------------------------------------- mmlsquota


def mml_table(name: str, device: str = "") -> Usage:
    return mml(mmlsquota.parse_table(read(f"mmlsquota_{name}.txt")), device)


def mml_fields(device: str = "") -> Usage:
    return mml(mmlsquota.parse_fields(read("mmlsquota_fields.txt")), device)


def mml(rows: list[Quota] | None, device: str) -> Usage:
    assert rows is not None
    chosen = mmlsquota.of_device(rows, device) if device else rows
    return as_space(chosen, "mmlsquota", device).fullest


def test_mmlsquota_table_gives_use_and_doubt_of_the_soft_limit() -> None:
    assert mml_table("table", "home") == Usage(
        3_200_000 * KIB, 4_000_000 * KIB, "mmlsquota home USR"
    )


def test_the_fullest_quota_counts_when_no_device_is_named() -> None:
    usage = mml_table("table")
    source = "mmlsquota work USR, above its soft limit, grace: 5 days"
    assert usage == Usage(61_000_000 * KIB, 60_000_000 * KIB, source)
    assert usage.fraction > 1


def test_units_and_filesets() -> None:
    usage = mml_table("filesets", "store:muons")
    assert usage == Usage((1536 * GIB + 1025 * GIB // 2), 2048 * GIB, "mmlsquota store:muons USR")


def test_fileset_of_a_device_and_hard_limit_without_a_soft_one() -> None:
    assert mml_table("filesets", "store:kaons") == Usage(
        10 * GIB, 40 * GIB, "mmlsquota store:kaons FILESET"
    )
    assert mml_table("filesets", "/dev/store:kaons") == mml_table("filesets", "store:kaons")


def test_files_in_doubt_count_as_well() -> None:
    rows = mmlsquota.parse_table(read("quota/mmlsquota_grace.txt"))
    assert limits(rows, "mmlsquota") == [
        (
            11_534_336 * KIB,
            10_485_760 * KIB,
            "mmlsquota work USR, above its soft limit, grace: 6 days",
        ),
        (3532, 50_000, "mmlsquota work USR, files"),
        (
            12_582_912 * KIB,
            10_485_760 * KIB,
            "mmlsquota store USR, above its soft limit, grace: expired",
        ),
        (3512, 3000, "mmlsquota store USR, files, above its soft limit, grace: 2 hours"),
    ]


def test_mmlsquota_fields_are_found_by_name_and_decoded() -> None:
    assert mml_fields("home") == Usage(3_200_000 * KIB, 4_000_000 * KIB, "mmlsquota home USR")
    assert mml_fields() == Usage(18_000_000 * KIB, 20_000_000 * KIB, "mmlsquota work:raw:data USR")


def test_mmlsquota_fields_may_move() -> None:
    lines = read("mmlsquota_fields.txt").splitlines()
    moved = "\n".join(
        ":".join(parts[:3] + ["new"] * 2 + parts[:2:-1])
        for parts in (line.split(":") for line in lines)
    )
    assert mmlsquota.parse_fields(moved) == mmlsquota.parse_fields("\n".join(lines))


def test_table_and_fields_agree_on_the_same_quota() -> None:
    assert mml_table("table", "home") == mml_fields("home")


@pytest.mark.parametrize("device", ["", "work", "elsewhere"])
def test_no_limits_means_no_quota_is_set(device: str) -> None:
    with pytest.raises(NoQuotaSet, match="no quota is set"):
        mml_table("nolimits", device)


def test_no_output_means_no_quota_is_set() -> None:
    assert mmlsquota.parse_table("") == []
    assert table.parse_table("") == []


MMLSQUOTA_TABLE = read("mmlsquota_table.txt")


@pytest.mark.parametrize(
    "text",
    [
        "mmlsquota: what?\n",
        "     Filesystem  kbytes   quota   limit   grace\n        /lustre 9821 0 100000 -\n",
        MMLSQUOTA_TABLE.replace("61000000", "6100000O"),
        MMLSQUOTA_TABLE.replace("61000000", "-61000000"),
        MMLSQUOTA_TABLE.replace("91234", "9123A"),
    ],
)
def test_mmlsquota_table_that_is_not_understood_is_not_guessed_at(text: str) -> None:
    assert mmlsquota.parse_table(text) is None


@pytest.mark.parametrize(
    "change", [("blockUsage", "used"), ("3000000", "3e6"), ("3000000", ""), ("HEADER", "TITLE")]
)
def test_mmlsquota_fields_that_are_not_understood_are_not_guessed_at(
    change: tuple[str, str],
) -> None:
    assert mmlsquota.parse_fields(read("mmlsquota_fields.txt").replace(*change)) is None


# --------------------------------------------------------------------------- quota and lfs quota


NFS = "quota fileserver:/export/mu2e/data user mu2e"


@pytest.mark.parametrize(
    ("name", "grace"), [("over", "1795842531"), ("words", "7days"), ("wrapped", "7days")]
)
def test_quota_over_nfs_above_the_soft_limit(name: str, grace: str) -> None:
    assert limits(table.parse_table(read(f"quota/quota_{name}.txt"))) == [
        (15392 * KIB, 10000 * KIB, f"{NFS}, above its soft limit, grace: {grace}"),
        (5, 100, f"{NFS}, files"),
    ]


def test_quota_without_grace() -> None:
    assert limits(table.parse_table(read("quota/quota_under.txt"))) == [
        (32 * KIB, 10000 * KIB, NFS),
        (4, 100, f"{NFS}, files"),
    ]


def test_a_user_without_quota_may_have_a_group_with_one() -> None:
    group = "quota /dev/sdb1 group muons"
    grace = ", files, above its soft limit, grace: 1795842539"
    assert limits(table.parse_table(read("quota/quota_groups.txt"))) == [
        (92161 * KIB, 102400 * KIB, group),
        (1990, 1000, group + grace),
    ]


def test_lfs_quota() -> None:
    assert limits(table.parse_table(read("quota/lfs_plain.txt")), "lfs") == [
        (982177580 * KIB, 1000000000 * KIB, "lfs /lustre usr mu2e")
    ]
    name = "lfs /lustre/experiment/data usr mu2e"
    assert limits(table.parse_table(read("quota/lfs_over.txt")), "lfs") == [
        (5242880 * KIB, 4194304 * KIB, f"{name}, above its soft limit, grace: 6d23h59m59s"),
        (120000, 1000000, f"{name}, files"),
    ]


def test_lfs_figures_that_are_not_exact_are_told_to_be() -> None:
    text = read("quota/lfs_inexact.txt")
    assert limits(table.parse_table(text), "lfs") == [
        (1041408 * KIB, 5242880 * KIB, "lfs /fast usr mu2e")
    ]
    assert table.is_inexact(text)
    assert not table.is_inexact(read("quota/lfs_plain.txt"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("15392*", "15392x"),
        ("15392*", ""),
        ("10000", "-10000"),
        ("Disk quotas", "disk Quotas"),
        ("     100     200       0", ""),
        ("Filesystem", "System"),
    ],
)
def test_quota_that_is_not_understood_is_not_guessed_at(old: str, new: str) -> None:
    text = read("quota/quota_over.txt")
    assert old in text
    assert table.parse_table(text.replace(old, new)) is None


def test_a_name_without_its_row_is_not_guessed_at() -> None:
    lines = read("quota/quota_wrapped.txt").splitlines()
    assert table.parse_table("\n".join(lines[:-1])) is None


@pytest.mark.parametrize(
    ("text", "project"), [(" 1000 P /lustre/mu2e\n", 1000), ("    0 - /lustre\n", 0), ("what", 0)]
)
def test_lfs_project(text: str, project: int) -> None:
    assert lfs.parse_project(text) == project


# --------------------------------------------------------------------------- eos


def test_eos_tells_what_files_have_not_what_disks_have() -> None:
    quotas = eos.parse_monitoring(read("quota/eos_monitoring.txt"))
    assert limits(quotas, "eos") == [
        (1_000_000_000, 500_000_000_000, "eos /eos/mu2e/user/ uid mu2e"),
        (8, 1_000_000, "eos /eos/mu2e/user/ uid mu2e, files"),
    ]
    words = read("quota/eos_monitoring.txt").splitlines()[0].split()
    old = " ".join(word for word in words if "log" not in word)
    assert limits(eos.parse_monitoring(old), "eos")[0] == (
        *(2_000_000_000, 1_000_000_000_000),
        "eos /eos/mu2e/user/ uid mu2e",
    )


def test_eos_quota_node_nearest_above_and_ones_own_only() -> None:
    count = Count(1, hard=2)
    own = Quota("/eos/mu2e/user/", "uid mu2e", count)
    others = [
        Quota("/eos/mu2e/", "uid mu2e", count),
        Quota("/eos/mu2e/user/", "uid someone", count),
        Quota("/eos/mu2e/user/other/", "uid mu2e", count),
        Quota("/eos/mu2e/users/", "uid mu2e", count),
    ]
    place = PurePosixPath("/eos/mu2e/user/m/mu2e/data")
    assert eos.choose([*others, own], place, frozenset({"uid mu2e"})) == [own]
    assert eos.choose(others, PurePosixPath("/data"), frozenset({"uid mu2e"})) == []


@pytest.mark.parametrize(
    ("old", "new"), [("usedlogicalbytes=", "used="), ("=8 ", "=many "), ("uid=mu2e ", "")]
)
def test_eos_that_is_not_understood_is_not_guessed_at(old: str, new: str) -> None:
    text = read("quota/eos_monitoring.txt")
    assert old in text
    changed = text.replace(old, new)
    if old == "usedlogicalbytes=":
        changed = changed.replace("usedbytes=", "")
    assert eos.parse_monitoring(changed) is None


# --------------------------------------------------------------------------- du, own commands


@pytest.mark.parametrize(
    ("text", "total"), [("4096\t/data\n", 4096), ("", None), ("4096\n", None), ("4k\t/data", None)]
)
def test_total_of_du(text: str, total: int | None) -> None:
    assert du.parse_total(text) == total


def test_lines_of_a_users_own_command() -> None:
    assert limits(custom.parse_lines("5 10\n\n1 0 7 8\n"), "ours") == [
        (5, 10, "ours"),
        (7, 8, "ours, files"),
    ]
    for text in ("", "5\n", "5 10 6\n", "5 10.0\n", "5 -10\n", "5 10\nplenty\n"):
        assert custom.parse_lines(text) is None


# --------------------------------------------------------------------------- mounts


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
fileserver:/export/mu2e /data nfs4 rw 0 0
/dev/sdb1 /data/my\\040disk xfs rw 0 0
tmpfs /data2 tmpfs rw 0 0
strange
/dev/sdc1 /data/my\\040disk ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "source", "kind"),
    [
        ("/home", "/dev/sda1", "ext4"),
        ("/data", "fileserver:/export/mu2e", "nfs4"),
        ("/data/raw", "fileserver:/export/mu2e", "nfs4"),
        ("/data/my disk/raw", "/dev/sdc1", "ext4"),  # mounted over the other one
        ("/data2/raw", "tmpfs", "tmpfs"),
    ],
)
def test_the_deepest_mount_holds_a_directory(place: str, source: str, kind: str) -> None:
    mount = mounts.find(MOUNTS, Path(place))
    assert mount is not None
    assert (mount.source, mount.kind) == (source, kind)


def test_no_mount_is_known() -> None:
    assert mounts.find("", Path("/data")) is None


# --------------------------------------------------------------------------- nonsense


Parser = Callable[[str], list[Quota] | None]

PARSERS = [
    pytest.param(mmlsquota.parse_table, ["mmlsquota_[nt]*.txt", "quota/mmlsquota_*"], id="table"),
    pytest.param(mmlsquota.parse_fields, ["mmlsquota_fields.txt"], id="fields"),
    pytest.param(table.parse_table, ["quota/quota_*", "quota/lfs_*"], id="quota"),
    pytest.param(eos.parse_monitoring, ["quota/eos_*"], id="eos"),
    pytest.param(custom.parse_lines, ["quota/own_*"], id="own"),
]


@pytest.mark.parametrize(("parse", "files"), PARSERS)
def test_whatever_is_read_from_garbage_is_nothing_or_makes_sense(
    parse: Parser, files: list[str]
) -> None:
    texts = [text for pattern in files for text in recorded(pattern)]
    understood = 0
    for text in spoilt_answers(*texts):
        try:
            space = as_space(parse(text) or [], "command", "here")
        except NoQuotaSet:
            continue
        assert all(limit.limit > 0 and limit.used >= 0 for limit in space.limits)
        understood += 1
    assert understood  # a part of them is sound still


def test_garbage_of_short_answers_is_never_more_than_a_figure() -> None:
    for text in spoilt_answers("15392\t/data\n", " 1000 P /lustre/mu2e\n", MOUNTS):
        assert (du.parse_total(text) or 0) >= 0
        assert lfs.parse_project(text) >= 0
        mount = mounts.find(text, Path("/data/raw"))
        assert mount is None or Path("/data/raw").is_relative_to(mount.point)
