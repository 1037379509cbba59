"""What all drawn instances share: stable UIDs, the attributes of patient, study and series, the file meta."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

# Everything is dated so that the newest study, the CT, leads the study list.
MANUFACTURER = "pacslite"
MODEL = "drawn phantom"


def stable_uid(name: str) -> UID:
    """The UID of a named thing of the sample: 2.25 and a name-based UUID as PS3.5 B.2 has it."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, 'pacslite sample ' + name).int}")


@dataclass(frozen=True, slots=True)
class Study:
    """The patient and study of one or more drawn series; `key` names it for its UIDs."""

    key: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    date: str
    time: str
    description: str
    accession_number: str

    @property
    def uid(self) -> UID:
        """Study Instance UID."""
        return stable_uid(f"{self.key}/study")


CT_STUDY = Study("ct", "SAMPLE-0001", "Phantom^Zoë", "19700101", "F", "20240311", "101500", "CT of a drawn phantom", "S0001")
MR_STUDY = Study("mr", "SAMPLE-0002", "Phantom^Ödön", "19650512", "M", "20240219", "143000", "MR of a drawn head", "S0002")
US_STUDY = Study(
    "us", "SAMPLE-0003", "Phantom^Taro=幻影^太郎=ふぁんとむ^たろう", "19800630", "O", "20240105", "083000", "Colour Doppler clip", "S0003"
)


def instance_of(study: Study, series: str, number: int, sop_class_uid: UID) -> Dataset:
    """A data set with file meta and the patient, study, series and SOP common modules, Explicit VR Little Endian."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = stable_uid(f"{study.key}/{series}/{number}")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = study.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = study.time
    ds.AccessionNumber = study.accession_number
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MODEL
    ds.ReferringPhysicianName = "Nobody^Norbert"
    ds.StudyDescription = study.description
    ds.PatientName = study.patient_name
    ds.PatientID = study.patient_id
    ds.PatientBirthDate = study.birth_date
    ds.PatientSex = study.sex
    ds.StudyInstanceUID = study.uid
    ds.SeriesInstanceUID = stable_uid(f"{study.key}/{series}")
    ds.StudyID = study.key.upper()
    ds.InstanceNumber = number
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    return ds


def image_pixel(ds: Dataset, rows: int, columns: int, *, bits: int, samples: int = 1) -> None:
    """The image pixel module of unsigned native pixels (PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        ds.PlanarConfiguration = 0
    ds.Rows = rows
    ds.Columns = columns
    ds.BitsAllocated = 16 if bits > 8 else 8
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
