"""[neutron] in kuryr.conf: where Neutron is, and who we are to it.

Law: every way to authenticate that keystoneauth knows works here under keystoneauth's own option names, or by the name of a
cloud in clouds.yaml.  Nothing is asked of the network here.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
from keystoneauth1 import exceptions as ksa
from keystoneauth1 import loading
from keystoneauth1.adapter import Adapter
from openstack import config as clouds
from openstack import exceptions as sdk
from openstack.warnings import RemovedInSDK60Warning
from oslo_config import cfg

from podvif import errors
from podvif.errors import Refused

SECTION = "neutron"

OPTIONS = [
    cfg.StrOpt(
        "cloud",
        default="",
        help="Name of a cloud in clouds.yaml (found as the OpenStack client finds it); then no other option about the"
        " account is read here. Without it the account stands here, under keystoneauth's own option names: auth_type"
        " (password, v3applicationcredential, none, …), that type's options, and region_name, endpoint_override, cafile, …",
    ),
    cfg.StrOpt(
        "device_owner",
        default="compute:kuryr",
        help="device_owner of the ports made for pods. One that begins with compute: makes Neutron notify Nova of them.",
    ),
    cfg.IntOpt(
        "concurrency",
        default=2,
        min=1,
        max=64,
        help="Requests to Neutron that are under way at once. More than Neutron has API processes makes it slower.",
    ),
    cfg.FloatOpt(
        "facts_lifetime",
        default=300.0,
        min=0.0,
        max=86400.0,
        help="Seconds that what Neutron said of a subnet, a network or its extensions is believed.",
    ),
    cfg.FloatOpt(
        "request_timeout",
        default=60.0,
        min=1.0,
        max=3600.0,
        help="Seconds without a byte from Neutron after which a request counts as failed.",
    ),
]
"""podvif's own options; keystoneauth adds those of sessions, of adapters and of the chosen auth_type."""


class Access(msgspec.Struct, frozen=True):
    """How to reach Neutron.

    Attributes:
        adapter: keystoneauth's, for the service `network`.
        device_owner: of our ports.
        concurrency: requests at once.
        facts_lifetime: seconds that facts are believed.
        request_timeout: seconds without a byte.
    """

    adapter: Adapter
    device_owner: str = "compute:kuryr"
    concurrency: int = 2
    facts_lifetime: float = 300.0
    request_timeout: float = 60.0


def load(files: Sequence[str]) -> Access:
    """Read [neutron] of the files, a later one over an earlier one.

    Raises:
        Refused: an option is unknown or has a value that cannot work, or there is no account.
    """
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTIONS, group=SECTION)
    loading.register_session_conf_options(conf, SECTION)
    loading.register_auth_conf_options(conf, SECTION)
    loading.register_adapter_conf_options(conf, SECTION)
    where = f"{', '.join(files) or 'the defaults'}: [{SECTION}]"
    try:
        conf(
            [argument for file in files for argument in ("--config-file", file)],
            project="podvif",
            default_config_files=[],
            default_config_dirs=[],
        )
        section = conf[SECTION]
        adapter = _of_cloud(section) if section.cloud else _of_options(conf)
        _refuse_unknown(files, conf, where)
        return Access(
            adapter=adapter,
            device_owner=section.device_owner,
            concurrency=section.concurrency,
            facts_lifetime=section.facts_lifetime,
            request_timeout=section.request_timeout,
        )
    except (cfg.Error, ValueError, TypeError, ksa.ClientException, sdk.SDKException) as error:
        raise Refused(f"{where}: {error}", "docs/reference/configuration.md has the options") from error


def _of_cloud(section: Any) -> Adapter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RemovedInSDK60Warning)  # the SDK warns of what it has itself set by default
        region = clouds.OpenStackConfig(app_name="podvif").get_one(cloud=section.cloud)
    return Adapter(
        session=region.get_session(),
        service_type="network",
        service_name=region.get_service_name("network"),
        interface=region.get_interface("network"),
        region_name=region.get_region_name("network"),
        endpoint_override=region.get_endpoint("network"),
    )


def _of_options(conf: cfg.ConfigOpts) -> Adapter:
    if not conf[SECTION].auth_type and not conf[SECTION].auth_section:
        raise ValueError("neither auth_type nor cloud is set, so there is no account")
    auth = loading.load_auth_from_conf_options(conf, SECTION)
    session = loading.load_session_from_conf_options(conf, SECTION, auth=auth)
    return loading.load_adapter_from_conf_options(conf, SECTION, session=session, auth=auth, service_type="network")


def _refuse_unknown(files: Sequence[str], conf: cfg.ConfigOpts, where: str) -> None:
    known = {name for option in conf._groups[SECTION]._opts.values() for name in _names(option["opt"])}  # noqa: SLF001  no public way to list what was registered
    for file in files:
        sections: dict[str, dict[str, list[str]]] = {}
        try:
            cfg.ConfigParser(file, sections).parse()
        except (OSError, cfg.ParseError) as error:
            raise Refused(f"{where}: {error}", "mend the file", code=errors.IO_FAILURE) from error
        for name in sections.get(SECTION, {}):
            if name.replace("-", "_") not in known:
                raise Refused(
                    f"{where} {name} is not an option",
                    "of podvif, nor of keystoneauth's sessions, adapters or of this auth_type",
                )


def _names(option: cfg.Opt) -> list[str]:
    deprecated = [other.name for other in option.deprecated_opts if other.name]
    return [name.replace("-", "_") for name in (option.dest, option.name, *deprecated)]
