"""The resources of the Studies Service (PS3.18 10.1) and who answers them."""

from __future__ import annotations

from pacslite.core.access import Right
from pacslite.dicomweb import capabilities, qido
from pacslite.dicomweb.bulk_data import retrieve_all_bulk_data, retrieve_bulk_data, retrieve_pixel_data
from pacslite.dicomweb.commitment import check_commitment, request_commitment
from pacslite.dicomweb.delete import delete_resource
from pacslite.dicomweb.metadata import retrieve_metadata
from pacslite.dicomweb.rendered import render_frames, render_instance, render_series, thumbnail, thumbnail_of_frame
from pacslite.dicomweb.representations import retrieve_resource
from pacslite.dicomweb.stow import store_instances, store_instances_of_study
from pacslite.dicomweb.wado import retrieve_frames
from pacslite.dicomweb.wado_uri import retrieve_by_uri
from pacslite.web.messages import Route

ROOT = "/dicom-web"
STUDIES = f"{ROOT}/studies"
STUDY = f"{STUDIES}/<study>"
SERIES = f"{STUDY}/series/<series>"
INSTANCE = f"{SERIES}/instances/<instance>"

ROUTES = (
    *qido.ROUTES,
    Route("POST", STUDIES, store_instances, Right.DICOMWEB_WRITE),
    Route("POST", STUDY, store_instances_of_study, Right.DICOMWEB_WRITE),
    Route("GET", STUDY, retrieve_resource, Right.DICOMWEB_READ, hot=True),
    Route("GET", SERIES, retrieve_resource, Right.DICOMWEB_READ, hot=True),
    Route("GET", INSTANCE, retrieve_resource, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{STUDY}/metadata", retrieve_metadata, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{SERIES}/metadata", retrieve_metadata, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{INSTANCE}/metadata", retrieve_metadata, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{INSTANCE}/frames/<frame_list>", retrieve_frames, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{STUDY}/rendered", render_series, Right.DICOMWEB_READ),
    Route("GET", f"{SERIES}/rendered", render_series, Right.DICOMWEB_READ),
    Route("GET", f"{INSTANCE}/rendered", render_instance, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{INSTANCE}/frames/<frame_list>/rendered", render_frames, Right.DICOMWEB_READ, hot=True),
    *(Route("GET", f"{level}/thumbnail", thumbnail, Right.DICOMWEB_READ, hot=True) for level in (STUDY, SERIES, INSTANCE)),
    Route("GET", f"{INSTANCE}/frames/<frame_list>/thumbnail", thumbnail_of_frame, Right.DICOMWEB_READ, hot=True),
    Route("GET", f"{INSTANCE}/bulkdata/<path:bulk_path>", retrieve_bulk_data, Right.DICOMWEB_READ),
    *(Route("GET", f"{level}/bulkdata", retrieve_all_bulk_data, Right.DICOMWEB_READ) for level in (STUDY, SERIES, INSTANCE)),
    *(Route("GET", f"{level}/pixeldata", retrieve_pixel_data, Right.DICOMWEB_READ) for level in (STUDY, SERIES, INSTANCE)),
    Route("GET", f"{ROOT}/wado", retrieve_by_uri, Right.DICOMWEB_READ),
    Route("POST", f"{ROOT}/commitment-requests/<transaction>", request_commitment, Right.DICOMWEB_WRITE),
    Route("GET", f"{ROOT}/commitment-requests/<transaction>", check_commitment, Right.DICOMWEB_WRITE),
    Route("DELETE", STUDY, delete_resource, Right.DICOMWEB_WRITE),
    Route("DELETE", SERIES, delete_resource, Right.DICOMWEB_WRITE),
    Route("DELETE", INSTANCE, delete_resource, Right.DICOMWEB_WRITE),
)
ROUTES = (*ROUTES, *capabilities.routes(ROOT, ROUTES))
