#!/usr/bin/env python3
"""The air: one virtual radio for the guest's kernel, and medical devices around it, made with Google's Bumble.

    air.py DIRECTORY

serves two unix sockets in DIRECTORY until its standard input ends:

    hci     HCI over H4, for QEMU to join to the guest. Each connection is a controller that was just switched on.
    control one JSON object a line asks for something, one JSON object a line answers: see `World.ask`.

It knows nothing of medicine: a device is what `place` describes, and says what `notify` tells it to. What happened is
written to DIRECTORY/events, a JSON object a line.

Bumble 0.0.236 is a toolbox for hosts; as an air it needs mending, each place marked [bumble]. What stays unlike a real
radio: data flow at once, without connection intervals, loss or air time, and any number of links is possible.
"""

import asyncio
import datetime
import json
import pathlib
import struct
import sys
import time

from bumble import hci, ll
from bumble.att import ATT_Error, Attribute, ErrorCode
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData
from bumble.device import Device, DeviceConfiguration
from bumble.gatt import Characteristic, CharacteristicValue, Descriptor, Service
from bumble.gatt_server import Server
from bumble.host import Host
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport.common import AsyncPipeSink, PacketParser

TIMEOUT = hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR
# A link without an answer dies after this long; BlueZ asks for 0.42 s to 4 s.
SUPERVISION = 0.5
ADVERTISING_INTERVAL_MS = 100.0
RECORD_ACCESS = "2A52"
# A connection interval that a meter asks for: one record in each.
RECORD_EVERY = 0.05
GATEWAY_ADDRESS = "00:1A:7D:DA:71:13"


class Air(LocalLink):
    """Who hears whom."""

    def __init__(self):
        super().__init__()
        self.unreachable = set()
        self.gateway = None

    def hear_each_other(self, one, other):
        return one not in self.unreachable and other not in self.unreachable

    def send_advertising_pdu(self, sender_controller, packet):
        # [bumble] would wake every controller for every advertisement: N devices, N * N calls. Devices do not scan.
        if isinstance(packet, ll.AdvInd):
            listeners = [self.gateway] if self.gateway else []
        else:
            listeners = [c for c in self.controllers if c is not sender_controller]
        for listener in listeners:
            if self.hear_each_other(sender_controller, listener):
                asyncio.get_running_loop().call_soon(listener.on_ll_advertising_pdu, packet)

    def other_end(self, connection):
        """(controller, connection) at the other end of a link, where there is one."""
        for controller in self.controllers:
            other = controller.le_connections.get(connection.self_address)
            if controller is not connection.controller and other and other.self_address == connection.peer_address:
                return controller, other
        return None, None

    def send_acl_data(self, sender_controller, destination_address, transport, data):
        # [bumble] names the sender by its random address, also where it connected with its public one.
        connection = sender_controller.le_connections.get(destination_address)
        controller, other = self.other_end(connection) if connection else (None, None)
        if other and self.hear_each_other(sender_controller, controller):
            asyncio.get_running_loop().call_soon(controller.on_link_acl_data, other.peer_address, transport, data)

    def send_ll_control_pdu(self, sender_address, receiver_address, packet):
        # [bumble] raises where nobody is there any more.
        for controller in self.controllers:
            connection = controller.le_connections.get(receiver_address)
            if connection and connection.self_address == sender_address:
                receiver, other = self.other_end(connection)
                if other and self.hear_each_other(controller, receiver):
                    asyncio.get_running_loop().call_soon(receiver.on_ll_control_pdu, sender_address, packet)
                return

    def end(self, connection, reason, this_end=True):
        """The link dies; both ends notice, or only the other."""
        controller, other = self.other_end(connection)
        if this_end:
            connection.controller.on_le_disconnected(connection, reason)
        else:
            connection.controller.le_connections.pop(connection.peer_address, None)
        if other:
            controller.on_le_disconnected(other, reason)


class Radio(Controller):
    """LE alone, as of Bluetooth 4.2: legacy advertising, hosts resolve private addresses."""

    le_features = (
        hci.LeFeatureMask.LE_ENCRYPTION
        | hci.LeFeatureMask.EXTENDED_REJECT_INDICATION
        | hci.LeFeatureMask.PERIPHERAL_INITIATED_FEATURE_EXCHANGE
        | hci.LeFeatureMask.LE_DATA_PACKET_LENGTH_EXTENSION
    )
    le_acl_data_packet_length = 251
    supported_max_tx_octets = 251
    supported_max_rx_octets = 251
    suggested_max_tx_octets = 251

    def on_le_disconnected(self, connection, reason):
        # [bumble] raises when both ends hang up at once.
        if self.le_connections.get(connection.peer_address) is connection:
            super().on_le_disconnected(connection, reason)


class GatewayRadio(Radio):
    """The guest's controller."""

    def __init__(self, air):
        super().__init__("gateway", link=air, public_address=hci.Address(GATEWAY_ADDRESS, hci.Address.PUBLIC_DEVICE_ADDRESS))
        air.gateway = self
        self.reported = set()

    def fall_silent(self):
        """It lost its power or was reset: its links die at the other end alone."""
        self.le_scan_enable = False
        self.pending_le_connection = None
        for connection in list(self.le_connections.values()):
            self.link.end(connection, TIMEOUT, this_end=False)

    def on_hci_reset_command(self, command):
        # [bumble] resets nothing.
        self.fall_silent()
        return super().on_hci_reset_command(command)

    def on_hci_le_set_scan_enable_command(self, command):
        self.reported.clear()
        return super().on_hci_le_set_scan_enable_command(command)

    def on_hci_le_create_connection_cancel_command(self, command):
        # [bumble] never completes a cancelled attempt, and the kernel waits for that.
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        completed = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address.address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(self.send_hci_packet, completed)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_advertising_pdu(self, pdu):
        # [bumble] reports with one RSSI, repeats the advertisement as the scan response, and ignores the duplicate filter.
        sender = next((c for c in self.link.controllers if c.le_legacy_advertiser.address == pdu.advertiser_address), None)
        if sender is None:
            return
        if self.le_scan_enable:
            self.report(sender, pdu, hci.HCI_LE_Advertising_Report_Event.EventType.ADV_IND, pdu.data)
            if self.le_scan_type == 1:
                response = sender.le_legacy_advertiser.scan_response_data
                self.report(sender, pdu, hci.HCI_LE_Advertising_Report_Event.EventType.SCAN_RSP, response)
        pending = self.pending_le_connection
        if pending and pending.peer_address == pdu.advertiser_address:
            self.create_le_connection(pdu.advertiser_address)

    def report(self, sender, pdu, kind, data):
        heard = (bytes(pdu.advertiser_address), kind, bytes(data))
        if self.filter_duplicates and heard in self.reported:
            return
        self.reported.add(heard)
        report = hci.HCI_LE_Advertising_Report_Event.Report(
            event_type=kind,
            address_type=pdu.advertiser_address.address_type,
            address=pdu.advertiser_address,
            data=data,
            rssi=sender.rssi,
        )
        self.send_hci_packet(hci.HCI_LE_Advertising_Report_Event([report]))


class DeviceRadio(Radio):
    rssi = -60


class GatewayPort(asyncio.Protocol):
    """QEMU's end of the gateway's HCI."""

    def __init__(self, world):
        self.world = world
        self.parser = PacketParser(world.gateway)
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.world.gateway.fall_silent()
        self.world.gateway.set_packet_sink(self)
        self.world.note("gateway", "powered on")

    def connection_lost(self, error):
        self.transport = None
        self.world.gateway.set_packet_sink(None)
        self.world.note("gateway", "lost its power")
        asyncio.get_running_loop().call_later(SUPERVISION, self.world.gateway.fall_silent)

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_packet(self, packet):
        if self.transport and self.world.plugged:
            self.transport.write(packet)


class Owner(PairingDelegate):
    """Whoever holds the device: reads its passkey out."""

    def __init__(self, device):
        shows = PairingDelegate.IoCapability.DISPLAY_OUTPUT_ONLY
        has_nothing = PairingDelegate.IoCapability.NO_OUTPUT_NO_INPUT
        super().__init__(has_nothing if device.passkey is None else shows)
        self.device = device

    async def generate_passkey(self):
        self.device.note("shows its passkey")
        return self.device.passkey


class Peripheral:
    """One device, as `place` described it."""

    def __init__(self, world, spec):
        self.world = world
        self.spec = spec
        self.address = spec["address"]
        self.passkey = spec.get("passkey")
        self.random = spec.get("random_address", False) or spec.get("privacy", False)
        self.on = False
        self.data = []
        self.link = None
        self.broken = None
        self.clocks = {}
        self.answers = {}
        self.memory = []
        self.drops_after = None
        kind = hci.Address.RANDOM_DEVICE_ADDRESS if self.random else hci.Address.PUBLIC_DEVICE_ADDRESS
        identity = hci.Address(self.address, kind)
        public = hci.Address(self.address, hci.Address.PUBLIC_DEVICE_ADDRESS)
        self.radio = DeviceRadio(self.address, link=world.air, public_address=public)
        config = DeviceConfiguration()
        config.name = spec["name"]
        config.address = identity
        config.irk = struct.pack("<6sQH", bytes(identity), 0x9E3779B97F4A7C15, 1)
        config.le_privacy_enabled = spec.get("privacy", False)
        # Rotated when asked to, not by a clock.
        config.le_rpa_timeout = 0
        self.device = Device(config=config, host=Host(self.radio, AsyncPipeSink(self.radio)))
        # [bumble] would call the identity address of a private device a public one.
        own = PairingConfig.AddressType.RANDOM if self.random else PairingConfig.AddressType.PUBLIC
        self.device.pairing_config_factory = lambda connection: PairingConfig(
            sc=True, mitm=self.passkey is not None, bonding=True, delegate=Owner(self), identity_address_type=own
        )
        self.device.on("connection", self.on_connection)
        self.characteristics = {}
        self.device.add_services([self.service(service) for service in spec["services"]])

    def note(self, what, **further):
        self.world.note(self.address, what, **further)

    # What it offers.

    def service(self, spec):
        return Service(UUID(spec["uuid"]), [self.characteristic(c) for c in spec["characteristics"]])

    def characteristic(self, spec):
        uuid = UUID(spec["uuid"])
        flags, properties, permissions = spec["flags"], Characteristic.Properties(0), Attribute.Permissions(0)
        if "read" in flags:
            properties |= Characteristic.Properties.READ
            permissions |= Attribute.READABLE
        if "write" in flags:
            properties |= Characteristic.Properties.WRITE
            permissions |= Attribute.WRITEABLE
        if "notify" in flags:
            properties |= Characteristic.Properties.NOTIFY
        if "indicate" in flags:
            properties |= Characteristic.Properties.INDICATE
        secured, wanted = spec.get("encrypted", False), Attribute.Permissions(0)
        if secured:
            wanted |= Attribute.WRITE_REQUIRES_ENCRYPTION
            permissions |= Attribute.READ_REQUIRES_ENCRYPTION if "read" in flags else Attribute.Permissions(0)
            if self.passkey is not None:
                wanted |= Attribute.WRITE_REQUIRES_AUTHENTICATION
        key = spec["uuid"]
        self.characteristics[key] = [None, bytes.fromhex(spec.get("value", ""))]
        # [bumble] lets anybody read what says that nobody may.
        value = CharacteristicValue(read=lambda connection: self.read(key), write=lambda connection, octets: self.written(key, octets))
        made = Characteristic(uuid, properties, permissions, value)
        if "notify" in flags or "indicate" in flags:
            # [bumble] adds this descriptor itself, readable and writable by anybody.
            asked = self.device.gatt_server.make_descriptor_value(made)
            made.descriptors = [Descriptor(UUID.from_16_bits(0x2902), Attribute.READABLE | Attribute.WRITEABLE | wanted, asked)]
            made.on("subscription", lambda bearer, notify, indicate: self.note("subscribed", uuid=key, on=bool(notify or indicate)))
        self.characteristics[key][0] = made
        return made

    def read(self, key):
        if not self.characteristics[key][0].properties & Characteristic.Properties.READ:
            raise ATT_Error(ErrorCode.READ_NOT_PERMITTED)
        return self.value(key)

    def value(self, key):
        if key not in self.clocks:
            return self.characteristics[key][1]
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.clocks[key])
        shown = struct.pack("<HBBBBB", now.year, now.month, now.day, now.hour, now.minute, now.second)
        # 2A2B goes on with the day of the week, fractions and the reason it was set for; none is known.
        return shown + b"\0\0\0" if UUID(key) == UUID.from_16_bits(0x2A2B) else shown

    def written(self, key, octets):
        self.note("written", uuid=key, value=octets.hex())
        self.characteristics[key][1] = octets
        if key in self.clocks:
            year, *rest = struct.unpack("<HBBBBB", octets[:7])
            shown = datetime.datetime(year, *rest, tzinfo=datetime.timezone.utc)
            self.clocks[key] = (shown - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
        asyncio.get_running_loop().create_task(self.answer(key, octets))

    async def answer(self, key, octets):
        """What it tells of itself once something is written to it."""
        for begins, told in self.answers.get(key, []):
            if octets.startswith(bytes.fromhex(begins)):
                for uuid, value in told:
                    await self.tell(uuid, bytes.fromhex(value))
                return
        if key == RECORD_ACCESS and octets[0] == 1:
            await self.report(octets)

    async def report(self, request):
        """Record Access Control Point: what it stored, all of it, the last, or from a number on."""
        records = self.memory
        if request[1] == 6:
            records = records[-1:]
        elif request[1] == 3:
            records = [record for record in records if record[0] >= struct.unpack("<H", request[3:5])[0]]
        for told, (_, uuid, value) in enumerate(records):
            if told == self.drops_after:
                self.drops_after = None
                await self.link.disconnect()
                return
            await asyncio.sleep(RECORD_EVERY)
            if not await self.tell(uuid, bytes.fromhex(value)):
                return
        await self.tell(RECORD_ACCESS, bytes([6, 0, 1, 1 if records else 6]))

    def move_handles(self):
        """Other firmware, with a service more before the others."""
        self.device.gatt_server = Server(self.device)
        self.device.gatt_server.max_mtu = 517
        self.device.gatt_service = None
        self.device.add_default_services(add_gap_service=True, add_gatt_service=True)
        more = Characteristic(UUID.from_16_bits(0x2A00), Characteristic.Properties.READ, Attribute.READABLE, b"more")
        self.device.add_services([Service(UUID("bed0a11e-0000-4000-8000-000000000001"), [more])] * 1)
        self.device.add_services([self.service(service) for service in self.spec["services"]])

    # Its radio.

    async def advertise(self):
        if not self.on or self.link:
            return
        uuids = b"".join(bytes(UUID(uuid)) for uuid in self.spec["advertised"])
        data = [(AdvertisingData.FLAGS, b"\x06"), (AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, uuids)]
        data = AdvertisingData(data + self.data)
        name = AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, self.spec["name"].encode())])
        await self.device.start_advertising(
            advertising_data=bytes(data),
            scan_response_data=bytes(name),
            advertising_interval_min=ADVERTISING_INTERVAL_MS,
            advertising_interval_max=ADVERTISING_INTERVAL_MS,
            own_address_type=hci.OwnAddressType.RANDOM if self.random else hci.OwnAddressType.PUBLIC,
        )

    async def broadcast(self, uuid, octets):
        """From now on it says this to everybody."""
        self.data = [(AdvertisingData.SERVICE_DATA_16_BIT_UUID, bytes(UUID(uuid)) + octets)]
        await self.device.stop_advertising()
        await self.advertise()

    async def rotate(self):
        """A new private address. [bumble] would give the controller the one before."""
        await self.device.stop_advertising()
        self.device.random_address = hci.Address.generate_private_address(self.device.irk)
        await self.device.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=self.device.random_address))
        await self.advertise()

    def on_connection(self, connection):
        self.link, self.broken = connection, asyncio.get_running_loop().create_future()
        self.note("connected")
        connection.on("disconnection", self.on_disconnection)
        connection.on("pairing", lambda keys: self.note("paired"))
        connection.on("pairing_failure", lambda reason: self.note("pairing failed", reason=str(reason)))
        connection.on("connection_encryption_change", lambda: self.note("encryption", on=bool(connection.encryption)))

    def on_disconnection(self, reason):
        self.link = None
        self.broken.set_result(None)
        self.note("disconnected", reason=int(reason))
        asyncio.get_running_loop().create_task(self.advertise())

    async def go(self, away):
        """Out of range or without power, or back again."""
        self.on = not away
        if away:
            self.world.air.unreachable.add(self.radio)
            await self.device.stop_advertising()
            await asyncio.sleep(SUPERVISION)
            for connection in list(self.radio.le_connections.values()):
                self.world.air.end(connection, TIMEOUT)
        else:
            self.world.air.unreachable.discard(self.radio)
            await self.advertise()

    def listens(self, key):
        """Whether the gateway subscribed in this connection."""
        made = self.characteristics[key][0]
        asked = self.device.gatt_server.subscribers.get(self.link, {}) if self.link else {}
        return any(asked.get(made.handle, b""))

    async def tell(self, key, octets):
        """Notifies or indicates; whether it got through."""
        if not self.listens(key):
            return False
        made, server, link = self.characteristics[key][0], self.device.gatt_server, self.link
        if made.properties & Characteristic.Properties.NOTIFY:
            await server.notify_subscriber(link, made, octets)
            return True
        sending = asyncio.ensure_future(server.indicate_subscriber(link, made, octets))
        # [bumble] waits 30 s for the confirmation that a dead link cannot bring.
        await asyncio.wait([sending, self.broken], return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.exception():
            return True
        sending.cancel()
        return False


class World:
    def __init__(self, directory):
        self.started = time.monotonic()
        self.events = open(directory / "events", "a", buffering=1)
        self.air = Air()
        self.gateway = GatewayRadio(self.air)
        self.plugged = True
        self.devices = {}

    def note(self, who, what, **further):
        at = round(time.monotonic() - self.started, 3)
        print(json.dumps({"at": at, "who": who, "what": what, **further}), file=self.events)

    async def ask(self, request):
        do = request.pop("do")
        if do == "place":
            device = Peripheral(self, request["device"])
            self.devices[device.address] = device
            await device.device.power_on()
            return {}
        if do == "gateway":
            # Pulled out: nothing reaches the guest, and its links die for want of answers.
            self.plugged = request["plugged"]
            if not self.plugged:
                self.gateway.fall_silent()
            return {}
        device = self.devices[request["address"]]
        if do != "state":
            device.note(do)
        if do == "advertise":
            device.radio.rssi = request.get("rssi", device.radio.rssi)
            await device.go(away=False)
        elif do == "away":
            await device.go(away=True)
        elif do == "drop" and device.link:
            await device.link.disconnect()
        elif do == "forget":
            await device.device.keystore.delete_all()
        elif do == "broadcast":
            await device.broadcast(request["uuid"], bytes.fromhex(request["value"]))
        elif do == "rotate":
            await device.rotate()
        elif do == "move":
            if device.link:
                await device.link.disconnect()
            device.move_handles()
        elif do == "value":
            device.characteristics[request["uuid"]][1] = bytes.fromhex(request["value"])
        elif do == "answers":
            device.answers[request["uuid"]] = request["answers"]
        elif do == "memory":
            device.memory, device.drops_after = request["records"], request["drops_after"]
        elif do == "clock":
            device.clocks[request["uuid"]] = request["offset"]
        elif do == "notify":
            return {"sent": await device.tell(request["uuid"], bytes.fromhex(request["value"]))}
        elif do == "state":
            bonds = await device.device.keystore.get_all() if device.device.keystore else []
            return {
                "connected": device.link is not None,
                "encrypted": bool(device.link and device.link.encryption),
                "bonded": bool(bonds),
                "listening": [key for key in device.characteristics if device.listens(key)],
                "address": str(device.device.random_address if device.random else device.address).split("/")[0],
            }
        elif do not in ("drop",):
            raise ValueError(f"nobody can {do}")
        return {}

    async def serve(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = await self.ask(json.loads(line))
            except Exception as error:  # whoever asked is told
                answer = {"error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def main():
    directory = pathlib.Path(sys.argv[1])
    loop = asyncio.get_running_loop()
    world = World(directory)
    await loop.create_unix_server(lambda: GatewayPort(world), directory / "hci")
    await asyncio.start_unix_server(world.serve, directory / "control")
    world.note("air", "ready")
    # Whoever started it holds the other end; with that process the air ends.
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    await stdin.read()


if __name__ == "__main__":
    asyncio.run(main())
