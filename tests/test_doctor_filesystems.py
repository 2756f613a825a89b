"""What the doctor says of mounts, from lines as kernels print them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from malformed import malformed

from production.doctor import filesystem
from production.doctor.filesystem import find_mount, judge, kind_of, mount_of, parse_mountinfo
from production.doctor.findings import Level

HOME = "26 1 8:3 / / rw,relatime shared:1 - ext4 /dev/sda3 rw,errors=remount-ro\n"
NFS = "rsize=1048576,wsize=1048576,namlen=255"
NFS4 = f"rw,vers=4.2,{NFS},hard,proto=tcp,timeo=600,retrans=2,sec=sys,clientaddr=10.1.2.3"
NFS3 = f"rw,vers=3,{NFS},hard,proto=tcp,timeo=600,retrans=2,sec=sys,mountaddr=10.1.2.4"
CIFS = "rw,vers=3.1.1,cache=strict,username=me,uid=1000,forceuid,addr=10.1.2.4,file_mode=0664"

# What stands after the separator, how bad it is, and a word that the finding must have.
KNOWN = {
    "ext4": ("ext4 /dev/sda3 rw,data=ordered", Level.NOTE, "disk of this host"),
    "xfs": ("xfs /dev/mapper/vg-home rw,attr2,inode64,noquota", Level.NOTE, "disk of this host"),
    "zfs": ("zfs tank/home rw,xattr,posixacl", Level.NOTE, "disk of this host"),
    "btrfs": ("btrfs /dev/sdb rw,space_cache=v2,subvolid=256", Level.NOTE, "disk of this host"),
    "tmpfs": ("tmpfs tmpfs rw,size=812644k,mode=755", Level.WARNING, "gone"),
    "overlay": (
        "overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
        Level.WARNING,
        "container",
    ),
    "NFS 4": (f"nfs4 filer:/home {NFS4},local_lock=none,addr=10.1.2.4", Level.OK, "nfs4"),
    "NFS 4, soft": (f"nfs4 filer:/home {NFS4},soft,local_lock=none", Level.WARNING, "soft"),
    "NFS 4, softerr": (
        f"nfs4 filer:/home {NFS4},softerr,local_lock=none",
        Level.WARNING,
        "softerr",
    ),
    "NFS 4, nocto": (f"nfs4 filer:/home {NFS4},nocto,local_lock=none", Level.WARNING, "nocto"),
    "NFS 3": (f"nfs filer:/home {NFS3},mountvers=3,local_lock=none", Level.NOTE, "lockd"),
    "NFS 3, nolock": (f"nfs filer:/home {NFS3},nolock,local_lock=all", Level.ERROR, "nolock"),
    "NFS 3, local_lock=posix": (f"nfs filer:/home {NFS3},local_lock=posix", Level.ERROR, "posix"),
    "NFS 3, local_lock=flock": (f"nfs filer:/home {NFS3},local_lock=flock", Level.NOTE, "lockd"),
    "NFS 2": ("nfs filer:/home rw,vers=2,hard,local_lock=none", Level.NOTE, "NFS 2"),
    "read-only": (f"nfs4 filer:/home {NFS4.replace('rw', 'ro', 1)}", Level.ERROR, "written"),
    "GPFS": ("gpfs store04 rw", Level.OK, "gpfs"),
    "Lustre with flock": (
        "lustre 10.1.1.67@tcp:/scratch rw,checksum,flock,user_xattr,lruresize,lazystatfs",
        Level.OK,
        "lustre",
    ),
    "Lustre with localflock": (
        "lustre 10.149.200.5@o2ib:10.149.200.4@o2ib:/scratch rw,localflock,lazystatfs",
        Level.ERROR,
        "localflock",
    ),
    "Lustre without": ("lustre 10.0.2.15@tcp:/lustre rw,user_xattr", Level.ERROR, "refuses locks"),
    "CephFS": ("ceph 10.1.4.63:6789:/ rw,name=me,secret=<hidden>,acl", Level.OK, "ceph"),
    "ceph-fuse": ("fuse.ceph-fuse ceph-fuse rw,user_id=0,allow_other", Level.OK, "ceph-fuse"),
    "MooseFS": ("fuse.mfs mfs#mfsmaster:9421 rw,user_id=0,allow_other", Level.OK, "mfs"),
    "GlusterFS": (
        "fuse.glusterfs server:/volume rw,user_id=0,allow_other,max_read=131072",
        Level.NOTE,
        "direct-io-mode",
    ),
    "sshfs": ("fuse.sshfs me@host:/home rw,user_id=1000,group_id=1000", Level.ERROR, "locks"),
    "SMB": (f"cifs //nas/home {CIFS}", Level.NOTE, "settings"),
    "SMB, nobrl": (f"cifs //nas/home {CIFS},nobrl,mfsymlinks", Level.ERROR, "nobrl"),
    "SMB, loose": (f"cifs //nas/home {CIFS.replace('strict', 'loose')}", Level.ERROR, "cache"),
    "SMB, soft": (f"smb3 //nas/home {CIFS},soft", Level.WARNING, "soft"),
    "BeeGFS": ("beegfs beegfs_nodev rw,cfgFile=/etc/beegfs/beegfs-client.conf", Level.NOTE, "sett"),
    "9p": ("9p hostshare rw,sync,dirsync,access=client,trans=virtio", Level.NOTE, "settings"),
    "9p, loose": ("9p hostshare rw,cache=loose,trans=virtio", Level.ERROR, "cache=loose"),
    "virtiofs": ("virtiofs share rw", Level.NOTE, "settings"),
    "AFS": ("afs AFS rw", Level.ERROR, "locks"),
    "rclone": ("fuse.rclone remote: rw,user_id=1000", Level.ERROR, "no locks"),
    "S3": ("fuse.s3fs s3fs rw,user_id=0,allow_other", Level.ERROR, "no locks"),
    "EOS": ("fuse.eosxd eosxd rw,user_id=0,allow_other", Level.NOTE, "settings"),
    "something new": ("fuse.newfs newfs rw", Level.NOTE, "nothing is known"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_mount_is_judged_by_kind_and_options(name: str) -> None:
    after, level, word = KNOWN[name]
    table = HOME + f"41 26 0:52 / /mnt/shared rw,relatime shared:31 master:2 - {after}\n"
    mount = mount_of(Path("/mnt/shared/group/data"), parse_mountinfo(table))
    assert mount is not None
    assert mount.point == Path("/mnt/shared")
    findings = list(judge(mount, Path("/mnt/shared/group/data")))
    assert max((f.level for f in findings), default=Level.OK) == level, findings
    assert any(word in finding.what for finding in findings), findings
    for finding in findings:
        assert "\n" not in finding.what
        assert finding.remedy or finding.level < Level.WARNING


@pytest.mark.parametrize("name", ["GlusterFS", "SMB", "BeeGFS", "9p", "something new"])
def test_where_only_a_trial_can_tell_the_doctor_knows_that(name: str) -> None:
    (mount,) = parse_mountinfo(f"41 26 0:52 / /m rw - {KNOWN[name][0]}\n")
    assert kind_of(mount).doubtful


@pytest.mark.parametrize("name", ["NFS 4", "GPFS", "Lustre with flock", "CephFS", "ext4"])
def test_where_nothing_is_in_doubt(name: str) -> None:
    (mount,) = parse_mountinfo(f"41 26 0:52 / /m rw - {KNOWN[name][0]}\n")
    assert not kind_of(mount).doubtful


# ------------------------------------------------------------------------------- the table


def test_blanks_and_backslashes_in_names() -> None:
    (mount,) = parse_mountinfo(r"36 35 98:0 / /mnt/my\040disk\134x rw - ext4 /dev/disk\040one rw")
    assert mount.point == Path("/mnt/my disk\\x")
    assert mount.source == "/dev/disk one"


def test_optional_fields_may_be_none_or_many() -> None:
    for optional in ("", "shared:7 ", "shared:7 master:1 propagate_from:2 unbindable "):
        (mount,) = parse_mountinfo(
            f"36 35 98:0 /sub /mnt rw,noatime {optional}- ext4 /dev/x rw,acl"
        )
        assert mount.options == {"rw", "noatime", "acl"}
        assert mount.device == "98:0"


def test_lines_that_make_no_sense_are_passed_over() -> None:
    text = f"broken line\n40 26 0:5 / /x rw nfs a:/b rw\n - \n1 2 3 - 4\n{HOME}"
    assert [mount.kind for mount in parse_mountinfo(text)] == ["ext4"]


@given(malformed(HOME, *(f"41 26 0:52 / /m rw - {mount}\n" for mount, *_ in KNOWN.values())))
def test_no_text_upsets_the_parser(text: str) -> None:
    for mount in parse_mountinfo(text):
        assert list(judge(mount, mount.point))


def test_the_deepest_mount_holds_a_path() -> None:
    table = HOME + (
        "30 26 0:30 / /home rw - nfs4 filer:/home rw\n"
        "31 30 0:31 / /home/group rw - gpfs store rw\n"
        "32 26 0:32 / /home/groups rw - xfs /dev/x rw\n"
    )
    mounts = parse_mountinfo(table)
    kinds = {
        "/home/group/data": "gpfs",
        "/home/group": "gpfs",
        "/home/groups/x": "xfs",
        "/home/me": "nfs4",
        "/homes": "ext4",
    }
    for path, kind in kinds.items():
        mount = mount_of(Path(path), mounts)
        assert mount is not None
        assert mount.kind == kind, path


def test_of_two_mounts_on_one_point_the_later_is_seen() -> None:
    table = HOME + "30 26 0:30 / /data rw - tmpfs t rw\n31 30 0:31 / /data rw - nfs4 a:/b rw\n"
    mount = mount_of(Path("/data/x"), parse_mountinfo(table))
    assert mount is not None
    assert mount.kind == "nfs4"


def test_a_mount_that_another_hides_is_told_by_its_device() -> None:
    table = HOME + "30 26 0:30 / /a/b rw - tmpfs t rw\n31 26 0:31 / /a rw - nfs4 f:/a rw\n"
    mount = mount_of(Path("/a/b/c"), parse_mountinfo(table), device="0:31")
    assert mount is not None
    assert mount.kind == "nfs4"


def test_no_mount_holds_a_path_outside_of_the_table() -> None:
    assert mount_of(Path("/mnt"), []) is None


def test_a_mount_whose_name_is_no_text_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "mountinfo"
    latin1 = b"40 26 0:55 / /r\xfcn rw - nfs4 filer:/r\xfcn rw,vers=4.2,hard\n"
    kernel.write_bytes(latin1 + HOME.encode())
    monkeypatch.setattr(filesystem, "_MOUNTINFO", kernel)
    mount = find_mount(tmp_path)
    assert mount is not None
    assert mount.kind == "ext4"


def test_the_kernel_of_this_host_is_understood(tmp_path: Path) -> None:
    mount = find_mount(tmp_path)
    assert mount is not None
    assert tmp_path.is_relative_to(mount.point)
    assert mount.kind
